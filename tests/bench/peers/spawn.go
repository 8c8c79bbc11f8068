// spawn.go TARGET COUNT: microseconds of each start and wait, one per line.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

func main() {
	count, _ := strconv.Atoi(os.Args[2])
	for i := 0; i < count; i++ {
		begin := time.Now()
		command := exec.Command(os.Args[1])
		command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := command.Run(); err != nil {
			panic(err)
		}
		fmt.Printf("%.1f\n", float64(time.Since(begin).Nanoseconds())/1e3)
	}
}

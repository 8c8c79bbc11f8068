// spawn.go TARGET COUNT: microseconds of each start, and of it and its wait, a line each.
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
		if err := command.Start(); err != nil {
			panic(err)
		}
		started := time.Since(begin)
		if err := command.Wait(); err != nil {
			panic(err)
		}
		whole := time.Since(begin)
		fmt.Printf("%.1f %.1f\n", float64(started.Nanoseconds())/1e3, float64(whole.Nanoseconds())/1e3)
	}
}

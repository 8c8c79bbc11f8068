// spawn.rs TARGET COUNT: microseconds of each start and wait, one per line.
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    for _ in 0..args[2].parse::<u32>().unwrap() {
        let begin = Instant::now();
        let status = Command::new(&args[1])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .status()
            .unwrap();
        assert!(status.success());
        println!("{:.1}", begin.elapsed().as_nanos() as f64 / 1e3);
    }
}

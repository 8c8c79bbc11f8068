// spawn.rs TARGET COUNT: microseconds of each start, and of it and its wait, a line each.
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    for _ in 0..args[2].parse::<u32>().unwrap() {
        let begin = Instant::now();
        let mut child = Command::new(&args[1])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let started = begin.elapsed().as_nanos() as f64 / 1e3;
        assert!(child.wait().unwrap().success());
        let whole = begin.elapsed().as_nanos() as f64 / 1e3;
        println!("{:.1} {:.1}", started, whole);
    }
}

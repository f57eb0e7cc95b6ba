//! What was measured on: figures mean little without it.

use std::fs;
use std::thread;

use serde::Serialize;

/// The machine, as its kernel describes it.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    kernel: String,
    architecture: &'static str,
    cpu: String,
    cores: usize,
    memory_mib: u64,
    /// Tasks that ran or wanted to, mean of the last minute, before the run: what else the machine was doing.
    load_before: f64,
    /// The same after the run, which itself is about as many tasks as the machine has cores.
    load_after: f64,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let load = load();
        Self {
            kernel: first_line("/proc/sys/kernel/osrelease"),
            architecture: std::env::consts::ARCH,
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory_mib(&read("/proc/meminfo")),
            load_before: load,
            load_after: load,
        }
    }

    /// At the end of the run.
    pub(crate) fn look_again(&mut self) {
        self.load_after = load();
    }

    /// In one line.
    pub(crate) fn describe(&self) -> String {
        let Self {
            kernel,
            architecture,
            cpu,
            cores,
            memory_mib,
            load_before,
            load_after,
        } = self;
        format!(
            "Linux {kernel} {architecture}, {cores} x {cpu}, {memory_mib} MiB; load {load_before:.2} before, \
             {load_after:.2} after"
        )
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn first_line(path: &str) -> String {
    read(path).lines().next().unwrap_or("unknown").to_owned()
}

fn load() -> f64 {
    let text = read("/proc/loadavg");
    let first = text.split_whitespace().next();
    first.and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
}

/// A field of `/proc/cpuinfo` or `/proc/meminfo`.
fn field(text: &str, name: &str) -> Option<String> {
    let (_, value) = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}

fn memory_mib(text: &str) -> u64 {
    let total = field(text, "MemTotal").and_then(|value| value.strip_suffix(" kB")?.parse::<u64>().ok());
    total.unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_are_found() {
        assert_eq!(memory_mib("MemTotal:       24672204 kB\nMemFree: 1 kB\n"), 24_093);
        let cpu = "processor\t: 0\nmodel name\t: A CPU @ 2 GHz\n";
        assert_eq!(field(cpu, "model name").as_deref(), Some("A CPU @ 2 GHz"));
    }
}

//! What the binary brings to the command line: the kinds, what `doctor` looks at, and the pipelines for `init`.

use tracetune_cli::{App, DoctorLine, Health, Template};
use tracetune_kernels::cuda::{self, Probe};
use tracetune_kernels::simd::Level;

use crate::python::Python;
use crate::sandbox::{Limits, Sandbox};

/// The whole application.
pub fn app() -> App {
    App {
        registry: crate::registry(),
        doctor: vec![python, sandbox, cpu, gpu],
        columns: crate::columns::STANDARD.iter().map(|column| (column.name, column.about)).collect(),
        watch: Some(crate::signatures::watch),
        paper: Some(crate::paper::NEXT),
        tools: crate::tools::all(),
        templates: vec![
            Template { name: "quickstart", text: include_str!("../../pipelines/quickstart.toml"), files: &[] },
            Template {
                name: "next",
                text: include_str!("../../pipelines/next.toml"),
                files: &[("pipelines/exemplars.jsonl", include_str!("../../pipelines/exemplars.jsonl"))],
            },
            Template {
                name: "python",
                text: include_str!("../../pipelines/python.toml"),
                files: &[("pipelines/scripts/edits.py", include_str!("../../pipelines/scripts/edits.py"))],
            },
        ],
    }
}

fn line(name: &str, health: Health, detail: impl Into<String>, help: Option<&str>) -> DoctorLine {
    DoctorLine { name: name.to_owned(), health, detail: detail.into(), help: help.map(str::to_owned) }
}

fn python() -> DoctorLine {
    match Python::find() {
        Ok(python) => {
            line("python3", Health::Ok, format!("{} at {}", python.version, python.executable.display()), None)
        }
        Err(error) => line(
            "python3",
            Health::Fail,
            error.to_string(),
            Some("install Python 3.10 or newer: the kinds trace, verify and mutate run programs with it"),
        ),
    }
}

fn sandbox() -> DoctorLine {
    let started = Python::find()
        .map_err(|error| error.to_string())
        .and_then(|python| Sandbox::start(&python, Limits::default(), 1).map_err(|error| error.to_string()));
    match started {
        Ok(sandbox) if sandbox.layers().missing.is_empty() => {
            line("sandbox", Health::Ok, sandbox.layers().to_string(), None)
        }
        Ok(sandbox) => line(
            "sandbox",
            Health::Warn,
            sandbox.layers().to_string(),
            Some("samples still run under the layers in force; run tracetune in a container for the rest"),
        ),
        Err(error) => line("sandbox", Health::Fail, error, Some("trace, verify and mutate need it")),
    }
}

fn cpu() -> DoctorLine {
    let level = Level::detect();
    let sets = [vec![level.name()], level.extensions()].concat().join(", ");
    line("cpu", Health::Ok, format!("kernels with {sets}; every set gives the same bits"), None)
}

fn gpu() -> DoctorLine {
    match cuda::probe() {
        Probe::Found { driver_version: (major, minor), devices } => {
            let names: Vec<String> = devices
                .iter()
                .map(|device| {
                    let (major, minor) = device.compute_capability;
                    format!("{} ({} GiB, compute {major}.{minor})", device.name, device.memory_bytes >> 30)
                })
                .collect();
            let detail = format!("CUDA {major}.{minor}: {}", names.join(", "));
            line("gpu", Health::Ok, detail, Some("not used yet: this version computes on the CPU"))
        }
        Probe::Absent(reason) => line("gpu", Health::Ok, format!("none ({reason}); everything runs on the CPU"), None),
    }
}

//! Package managers, and what each calls the things that Tramline's commands need.

use crate::process;

/// A package manager that setup knows the names for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manager {
    Apt,
    Dnf,
    Pacman,
}

/// One package under each manager's name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) apt: &'static str,
    pub(crate) dnf: &'static str,
    pub(crate) pacman: &'static str,
}

impl Names {
    pub(crate) fn of(&self, manager: Manager) -> &'static str {
        match manager {
            Manager::Apt => self.apt,
            Manager::Dnf => self.dnf,
            Manager::Pacman => self.pacman,
        }
    }
}

impl Manager {
    /// The one that this system uses.
    pub(crate) fn detect() -> Option<Self> {
        [
            (Self::Apt, "apt-get"),
            (Self::Dnf, "dnf"),
            (Self::Pacman, "pacman"),
        ]
        .into_iter()
        .find_map(|(manager, program)| process::exists(program).then_some(manager))
    }

    pub(crate) fn install_command(self) -> &'static str {
        match self {
            Self::Apt => "apt-get install --no-install-recommends",
            Self::Dnf => "dnf install",
            Self::Pacman => "pacman -S --needed",
        }
    }

    /// A rustc with its source and its LLVM's headers, as well as it can be said without a look at the system.
    pub(crate) fn ebpf_toolchain(self) -> Vec<String> {
        let names: &[&str] = match self {
            Self::Apt => &["rustc-web", "rust-web-src"],
            Self::Dnf => &[
                "rust",
                "rust-src",
                "cargo",
                "llvm-devel",
                "gcc-c++",
                "libzstd-devel",
            ],
            Self::Pacman => &["rust", "rust-src", "llvm", "base-devel"],
        };
        names.iter().map(|&name| name.to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_manager_has_a_name_for_every_package() {
        let names = Names {
            apt: "iproute2",
            dnf: "iproute",
            pacman: "iproute2",
        };
        assert_eq!(names.of(Manager::Dnf), "iproute");
        for manager in [Manager::Apt, Manager::Dnf, Manager::Pacman] {
            assert!(!manager.ebpf_toolchain().is_empty());
            assert!(manager.install_command().starts_with(['a', 'd', 'p']));
        }
    }
}

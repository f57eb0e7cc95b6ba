//! What is in an eBPF object, read from its ELF: programs by section, maps by symbol.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind, elf};

/// The contents of one object, for a person to check.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ObjectSummary {
    /// Bytes of the file.
    pub(crate) size: u64,
    /// `section function`, in the order of their names.
    pub(crate) programs: Vec<String>,
    pub(crate) maps: Vec<String>,
}

impl ObjectSummary {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&bytes).with_context(|| format!("{} is not an eBPF object", path.display()))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let file = object::File::parse(bytes)?;
        let mut summary = Self {
            size: bytes.len() as u64,
            ..Self::default()
        };
        for symbol in file.symbols().filter(|symbol| symbol.is_global()) {
            let Some(section) = symbol
                .section_index()
                .and_then(|index| file.section_by_index(index).ok())
            else {
                continue;
            };
            let (section_name, name) = (section.name()?, symbol.name()?);
            let executable = matches!(section.flags(), SectionFlags::Elf { sh_flags }
                if sh_flags & u64::from(elf::SHF_EXECINSTR) != 0);
            if matches!(section_name, "maps" | ".maps") {
                summary.maps.push(name.to_owned());
            } else if executable && section_name != ".text" && symbol.kind() == SymbolKind::Text {
                // `.text` holds functions that programs call, not programs.
                summary.programs.push(format!("{section_name} {name}"));
            }
        }
        summary.programs.sort();
        summary.maps.sort();
        Ok(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_an_object_is_refused() {
        assert!(ObjectSummary::parse(b"not an ELF file").is_err());
        assert!(ObjectSummary::parse(b"").is_err());
    }
}

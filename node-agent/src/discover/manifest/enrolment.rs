//! The label that enrols, where it is almost one.

use tramline_core::labels::Labels;
use tramline_core::mesh::{MODE_LABEL, MODE_NONE, MODE_TRAMLINE};
use tramline_core::object::{ObjectError, ObjectRef};

use super::suggest;

/// Other labels, and the values of other meshes, are nobody's mistake. But with `Tramline` for `tramline` a namespace would stay out of
/// the mesh, and its policies without effect.
pub(super) fn check(labels: &Labels, object: &ObjectRef, errors: &mut Vec<ObjectError>) {
    for (key, value) in labels {
        let problem = if &**key == MODE_LABEL {
            almost(value, &[MODE_TRAMLINE, MODE_NONE])
                .map(|meant| format!("`{value}` is no mode; did you mean `{meant}`?"))
        } else {
            almost(key, &[MODE_LABEL]).map(|meant| format!("is not read; did you mean `{meant}`?"))
        };
        if let Some(problem) = problem {
            errors.push(ObjectError::new(
                object,
                format!("metadata.labels.{key}"),
                problem,
            ));
        }
    }
}

fn almost(text: &str, known: &[&'static str]) -> Option<&'static str> {
    suggest::near(text, known).filter(|meant| *meant != text)
}

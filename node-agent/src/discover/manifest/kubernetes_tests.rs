//! What Kubernetes would refuse, or take for something else than its author meant.

use super::tests::{bad, good};

fn pod(metadata: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  {metadata}\nspec: {{}}\n")
}

#[test]
fn almost_the_label_or_the_value_that_enrols_is_refused() {
    for (labels, said) in [
        (
            "istio.io/dataplane-mode: Tramline",
            "metadata.labels.istio.io/dataplane-mode: `Tramline` is no mode; did you mean `tramline`?",
        ),
        (
            "istio.io/dataplane-mode: tramlin",
            "`tramlin` is no mode; did you mean `tramline`?",
        ),
        (
            "istio.io/dataplane-mode: None",
            "`None` is no mode; did you mean `none`?",
        ),
        (
            "istio.io/dataplane_mode: tramline",
            "metadata.labels.istio.io/dataplane_mode: is not read; did you mean `istio.io/dataplane-mode`?",
        ),
        (
            "istio.io/dataplanemode: none",
            "metadata.labels.istio.io/dataplanemode: is not read; did you mean `istio.io/dataplane-mode`?",
        ),
        (
            "Istio.io/Dataplane-Mode: ambient",
            "metadata.labels.Istio.io/Dataplane-Mode: is not read; did you mean",
        ),
    ] {
        let text = pod(&format!("labels:\n    app: a\n    {labels}"));
        bad(&text, &["f.yaml:7: Pod default/a (line 1): ", said]);
        bad(
            &text.replace("kind: Pod", "kind: Namespace"),
            &["f.yaml:7: Namespace a (line 1): ", said],
        );
        // Nobody enrols these.
        good(
            &text
                .replace("kind: Pod", "kind: Service")
                .replace("{}", "{clusterIP: None}"),
        );
    }
    for label in [
        "istio.io/dataplane-mode: tramline",
        "istio.io/dataplane-mode: none",
        "istio.io/dataplane-mode: ambient",
        "istio.io/dataplane-mode: sidecar",
        "istio.io/dataplane-mode: \"\"",
        "istio.io/use-waypoint: none",
        "istio.io/rev: Tramline",
        "dataplane-mode: Tramline",
    ] {
        good(&pod(&format!("labels: {{{label}}}")));
    }
}

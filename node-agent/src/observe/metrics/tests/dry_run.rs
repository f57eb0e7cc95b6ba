//! What dry-run policies would have decided is counted by policy, within a bound.

use std::time::Duration;

use tramline_core::authz::{AllowedBy, Decision};

use super::super::dry_run::MAX_DRY_RUNS;
use super::*;
use crate::observe::test_support::denied_by;

const NAME: &str = "tramline_dry_run_total";

fn end(observer: &Arc<Observer>, dry_run: Option<Decision>, reason: Reason) {
    let mut info = connection(Reporter::Destination);
    info.dry_run = dry_run.map(Arc::new);
    observer.open(info).finish(reason);
}

#[test]
fn both_verdicts_and_the_policy_are_counted_and_nothing_without_a_dry_run() {
    let observer = observer(MetricsSettings::default());
    end(&observer, None, Reason::Ok);
    assert_eq!(lines(&observer.render(), NAME), Vec::<&str>::new());
    let by = AllowedBy::Default;
    end(&observer, Some(denied_by("p")), Reason::Ok);
    end(&observer, Some(denied_by("p")), Reason::Ok);
    end(&observer, Some(denied_by("p")), Reason::PolicyDenied);
    end(&observer, Some(denied_by("q")), Reason::Ok);
    end(&observer, Some(Decision::Allow { by }), Reason::PolicyDenied);
    let text = observer.render();
    let found: BTreeSet<_> = lines(&text, NAME).into_iter().collect();
    let expected = [
        "tramline_dry_run_total{verdict=\"allow\",dry_run=\"deny\",policy=\"default/p\"} 2",
        "tramline_dry_run_total{verdict=\"allow\",dry_run=\"deny\",policy=\"default/q\"} 1",
        "tramline_dry_run_total{verdict=\"deny\",dry_run=\"allow\",policy=\"-\"} 1",
        "tramline_dry_run_total{verdict=\"deny\",dry_run=\"deny\",policy=\"default/p\"} 1",
    ];
    let shown: BTreeSet<_> = found.iter().map(|line| line.replace(".0", "")).collect();
    assert_eq!(shown, expected.map(str::to_owned).into());
}

#[test]
fn policies_that_come_and_go_stay_within_the_bound_and_lose_no_count() {
    let observer = observer(MetricsSettings::default());
    let flood = MAX_DRY_RUNS + 50;
    for index in 0..flood {
        end(&observer, Some(denied_by(&format!("p{index}"))), Reason::Ok);
    }
    end(&observer, Some(denied_by("p0")), Reason::Ok);
    let text = observer.render();
    assert_eq!(lines(&text, NAME).len(), MAX_DRY_RUNS + 1);
    assert_eq!(sum(&text, NAME, "policy=\"other\""), 50.0);
    assert_eq!(
        sum(&text, NAME, "policy=\"default/p0\""),
        2.0,
        "who is there stays"
    );
    assert_eq!(sum(&text, NAME, ""), f64::from(u32::try_from(flood).unwrap() + 1));
}

#[test]
fn a_policy_that_no_connection_meets_any_more_makes_room() {
    let observer = observer(MetricsSettings {
        idle_label_set: Duration::from_millis(1),
        ..MetricsSettings::default()
    });
    end(&observer, Some(denied_by("gone")), Reason::Ok);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(lines(&observer.render(), NAME), Vec::<&str>::new());
}

//! Somebody writes a manifest that is wrong.

use anyhow::{Result, ensure};
use tramline_harness::mesh::{INSIDE, principal};
use tramline_harness::wait;

use crate::stage::{SOON, Stage};

/// One letter is missing: read by somebody less strict, the rule would have no `principals` and let everybody in.
const WRONG: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: only-client\n  \
                     namespace: sample\nspec:\n  selector:\n    matchLabels:\n      app: helloworld\n  rules:\n  \
                     - from:\n    - source:\n        principal:\n        - cluster.local/ns/sample/sa/sleep\n";

/// `client` is let in and `sleep` is not, before and after the policy is broken.
pub(crate) fn refused(stage: &mut Stage) -> Result<String> {
    let file = format!("authorizationpolicy-{INSIDE}-only-client");
    let allowed = principal("client");
    stage
        .mesh
        .change(|config| config.policy(INSIDE, "only-client", "helloworld", "ALLOW", &[&allowed]))?;
    stage.mesh.config.write(&file, WRONG)?;
    let mut said = Vec::new();
    for agent in &stage.mesh.agents {
        let problem = wait::until("the manifest to be refused", SOON, || {
            let status = agent.cli("status")?;
            Ok(status["config_problems"][0].as_str().map(str::to_owned))
        })?;
        said.push(problem);
    }
    said.dedup();
    let [problem] = said.as_slice() else {
        anyhow::bail!("the agents disagree: {said:?}")
    };
    ensure!(problem.contains("did you mean `principals`?"), "{problem}");
    let client = stage.get(&stage.client, stage.service4(), 4, "none")?.len();
    let sleep = stage.try_get(&stage.sleep, stage.service4(), 2, "none")?;
    ensure!(
        sleep.len() == 2 && sleep.iter().all(|report| report["status"].is_null()),
        "sleep is let in by a policy that was refused: {sleep:?}"
    );
    stage.mesh.change(|config| config.remove(&file))?;
    stage.get(&stage.sleep, stage.service4(), 2, "none")?;
    Ok(format!(
        "{problem} The policy before it stays: client answered {client} of 4, sleep denied {} of 2",
        sleep.len()
    ))
}

use crate::discover::manifest::Format;
use crate::discover::manifest::print;
use crate::discover::manifest::tests::{POD, good, read_as};

/// What is printed is read as the same again, and says what was left to defaults.
#[test]
fn what_is_printed_reads_as_it_was() {
    let more = "---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: demo, creationTimestamp: \"2026-01-31T12:00:00Z\"}
spec: {clusterIPs: [10.96.0.1], selector: {app: \"1.10\"}, sessionAffinity: ClientIP, trafficDistribution: PreferClose, ports: [{name: http, port: 80, targetPort: web, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s-x, namespace: demo, labels: {kubernetes.io/service-name: s}}
addressType: IPv6
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [\"fd00::1\"], conditions: {ready: false, serving: true, terminating: true}, nodeName: n1, zone: z1, hints: {forZones: [{name: z1}], forNodes: [{name: n1}]}}, {addresses: [\"fd00::2\"], conditions: {ready: false}}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: p, namespace: demo}
spec: {selector: {matchLabels: {app: a}}, mtls: {mode: DISABLE}, portLevelMtls: {8080: {mode: STRICT}}}
---
apiVersion: security.istio.io/v1beta1
kind: AuthorizationPolicy
metadata: {name: a, namespace: demo, annotations: {istio.io/dry-run: \"true\"}}
spec: {action: CUSTOM, provider: {name: x}, targetRefs: [{kind: Service, name: s}, {group: gateway.networking.k8s.io, kind: Gateway, name: g}], rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: b, namespace: demo}
spec:
  selector: {matchLabels: {app: a}}
  rules:
  - from:
    - source: {principals: [cluster.local/ns/a/sa/b, \"*\"], notNamespaces: [x*], ipBlocks: [10.0.0.0/8, \"::ffff:10.0.0.1\"], trustDomains: [td]}
    - source: {serviceAccounts: [own, other/name]}
    to: [{operation: {ports: [\"80\"], notPorts: [\"81\"], methods: [GET]}}]
    when: [{key: source.ip, notValues: [fd00::/8]}, {key: \"request.headers[x]\", values: [y]}, {key: destination.port, values: [\"80\"]}]
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/zone: z1}}
---
apiVersion: v1
kind: Namespace
metadata: {name: demo}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: sleep, namespace: demo}
";
    let objects = good(&format!("{POD}{more}"));
    let printed = print::list(&objects);
    for (text, format) in [
        (serde_norway::to_string(&printed).unwrap(), Format::Yaml),
        (serde_json::to_string_pretty(&printed).unwrap(), Format::Json),
    ] {
        let (again, errors) = read_as(&text, format);
        assert_eq!(errors, Vec::<String>::new(), "{text}");
        assert_eq!(print::list(&again), printed);
        let mut policies = again.authorization_policies.clone();
        for policy in &mut policies {
            policy.meta.object.origin = Some("f.yaml".into());
        }
        let mut before = objects.authorization_policies.clone();
        for policy in &mut before {
            policy.meta.object.origin = Some("f.yaml".into());
        }
        assert_eq!(policies, before, "every policy as it was");
        assert_eq!(
            again.pods[0].service_account.as_deref(),
            objects.pods[0].service_account.as_deref()
        );
        assert_eq!(again.pods[0].addresses, objects.pods[0].addresses);
        assert_eq!(
            again.endpoint_slices[0].endpoints,
            objects.endpoint_slices[0].endpoints
        );
        assert_eq!(again.services.len(), 2);
    }
}

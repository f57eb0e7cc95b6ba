use super::super::tests::{POD as POD_TEXT, bad, good};
use super::*;

/// A valid object of each core kind, with all that is read.
const SERVICE_TEXT: &str = "apiVersion: v1
kind: Service
metadata: {name: s, namespace: demo}
spec:
  type: NodePort
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1]
  selector: {redy: a, nodename: b}
  ports:
  - {name: web, protocol: TCP, port: 80, targetPort: 8080, appProtocol: http}
  publishNotReadyAddresses: true
  internalTrafficPolicy: Local
  trafficDistribution: PreferClose
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}
";
const SLICE: &str = "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s-1, namespace: demo, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
endpoints:
- addresses: [10.0.0.1]
  conditions: {ready: false, serving: true, terminating: false}
  nodeName: n1
  zone: a
  hints: {forZones: [{name: a}], forNodes: [{name: n1}]}
ports:
- {name: web, protocol: TCP, port: 8080}
";

/// Each field of `text` that is read, as it is written there, and as somebody might write it.
const MISSPELT: &[(&str, &str, &str, &str, &str)] = &[
    (POD_TEXT, "spec:\n", "spce:\n", "spce", "spec"),
    (POD_TEXT, "status:\n", "Status:\n", "Status", "status"),
    (POD_TEXT, "nodeName", "nodename", "spec.nodename", "nodeName"),
    (
        POD_TEXT,
        "serviceAccountName",
        "serviceaccountName",
        "spec.serviceaccountName",
        "serviceAccountName",
    ),
    (
        POD_TEXT,
        "containers:",
        "contaners:",
        "spec.contaners",
        "containers",
    ),
    (
        POD_TEXT,
        "[{name: http, containerPort",
        "[{nmae: http, containerPort",
        "spec.containers[0].ports[0].nmae",
        "name",
    ),
    (
        POD_TEXT,
        "containerPort: 53, protocol",
        "containerPort: 53, protocl",
        "spec.containers[0].ports[1].protocl",
        "protocol",
    ),
    (POD_TEXT, "ports:", "port:", "spec.containers[0].port", "ports"),
    (POD_TEXT, "phase", "phaze", "status.phaze", "phase"),
    (POD_TEXT, "podIPs", "podIps", "status.podIps", "podIPs"),
    (
        POD_TEXT,
        "conditions",
        "condition",
        "status.condition",
        "conditions",
    ),
    (
        POD_TEXT,
        "{type: Ready, status",
        "{type: Ready, state: x, statsu",
        "status.conditions[0].statsu",
        "status",
    ),
    (
        POD_TEXT,
        "controller: true",
        "contoller: true",
        "metadata.ownerReferences[0].contoller",
        "controller",
    ),
    (SERVICE_TEXT, "spec:", "Spec:", "Spec", "spec"),
    (SERVICE_TEXT, "type", "typ", "spec.typ", "type"),
    (
        SERVICE_TEXT,
        "clusterIPs",
        "clusterIps",
        "spec.clusterIps",
        "clusterIPs",
    ),
    (
        SERVICE_TEXT,
        "selector",
        "selectors",
        "spec.selectors",
        "selector",
    ),
    (
        SERVICE_TEXT,
        "publishNotReadyAddresses",
        "publishNotReadyAdresses",
        "spec.publishNotReadyAdresses",
        "publishNotReadyAddresses",
    ),
    (
        SERVICE_TEXT,
        "internalTrafficPolicy",
        "internalTraficPolicy",
        "spec.internalTraficPolicy",
        "internalTrafficPolicy",
    ),
    (
        SERVICE_TEXT,
        "trafficDistribution",
        "trafficdistribution",
        "spec.trafficdistribution",
        "trafficDistribution",
    ),
    (
        SERVICE_TEXT,
        "sessionAffinity:",
        "sesionAffinity:",
        "spec.sesionAffinity",
        "sessionAffinity",
    ),
    (
        SERVICE_TEXT,
        "clientIP:",
        "clientIp:",
        "spec.sessionAffinityConfig.clientIp",
        "clientIP",
    ),
    (
        SERVICE_TEXT,
        "timeoutSeconds",
        "timeoutSecond",
        "spec.sessionAffinityConfig.clientIP.timeoutSecond",
        "timeoutSeconds",
    ),
    (
        SERVICE_TEXT,
        "targetPort",
        "targetport",
        "spec.ports[0].targetport",
        "targetPort",
    ),
    (
        SERVICE_TEXT,
        "appProtocol",
        "appprotocol",
        "spec.ports[0].appprotocol",
        "appProtocol",
    ),
    (SLICE, "endpoints", "endpoint", "endpoint", "endpoints"),
    (SLICE, "addressType", "addresstype", "addresstype", "addressType"),
    (SLICE, "ready", "redy", "endpoints[0].conditions.redy", "ready"),
    (
        SLICE,
        "terminating",
        "terminatng",
        "endpoints[0].conditions.terminatng",
        "terminating",
    ),
    (
        SLICE,
        "conditions",
        "conditons",
        "endpoints[0].conditons",
        "conditions",
    ),
    (SLICE, "nodeName", "nodName", "endpoints[0].nodName", "nodeName"),
    (SLICE, "zone:", "zones:", "endpoints[0].zones", "zone"),
    (SLICE, "hints", "hint", "endpoints[0].hint", "hints"),
    (
        SLICE,
        "forZones",
        "forzones",
        "endpoints[0].hints.forzones",
        "forZones",
    ),
    (SLICE, "port:", "Port:", "ports[0].Port", "port"),
];

#[test]
fn what_is_almost_a_field_that_is_read_is_refused() {
    for text in [POD_TEXT, SERVICE_TEXT, SLICE] {
        good(text);
    }
    for (text, right, wrong, path, meant) in MISSPELT {
        assert!(text.contains(right), "{right}");
        let misspelt = text.replacen(right, wrong, 1);
        let line = 1 + misspelt
            .lines()
            .take_while(|line| !line.contains(wrong.trim()))
            .count();
        bad(
            &misspelt,
            &[
                &format!("f.yaml:{line}: "),
                " demo/",
                &format!(": {path}: is not a field; did you mean `{meant}`?"),
            ],
        );
    }
}

#[test]
fn fields_of_items_of_a_list_are_looked_at_and_so_is_the_list() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n\
                - {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p}, spec: {}}\n\
                - apiVersion: v1\n  kind: Pod\n  metadata: {name: b}\n  spec: {nodename: n1}\n";
    bad(
        list,
        &["f.yaml:9: Pod default/b (line 6): spec.nodename: is not a field; did you mean `nodeName`?"],
    );
    good(&list.replace("nodename", "nodeName"));
    bad(
        "apiVersion: v1\nkind: List\nitmes: []\n",
        &["f.yaml:3: List (line 1): itmes: is not a field; did you mean `items`?"],
    );
    let (_, errors) = super::super::tests::read_as(
        "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"b\"},\n\"spec\": {\"hostnetwork\": true}}",
        super::super::Format::Json,
    );
    assert_eq!(
        errors,
        ["f.yaml:2: Pod default/b (line 1): spec.hostnetwork: is not a field; did you mean `hostNetwork`?"]
    );
}

/// All fields that Kubernetes 1.35 has, and some that it had, at the levels of which something is read.
static KUBERNETES: &[(&Level, &str)] = &[
    (&POD, "apiVersion kind metadata spec status"),
    (&SERVICE, "apiVersion kind metadata spec status"),
    (&NAMED, "apiVersion kind metadata spec status"),
    (
        &SERVICE_ACCOUNT,
        "apiVersion kind metadata secrets imagePullSecrets automountServiceAccountToken",
    ),
    (
        &ENDPOINT_SLICE,
        "apiVersion kind metadata addressType endpoints ports",
    ),
];

/// The same below them, by path.
static BELOW: &[(&Level, &[&str], &str)] = &[
    (
        &POD,
        &["metadata"],
        "annotations clusterName creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers generateName \
         generation labels managedFields name namespace ownerReferences resourceVersion selfLink uid",
    ),
    (
        &POD,
        &["metadata", "ownerReferences"],
        "apiVersion blockOwnerDeletion controller kind name uid",
    ),
    (
        &POD,
        &["spec"],
        "activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy enableServiceLinks \
         ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride \
         imagePullSecrets initContainers nodeName nodeSelector os overhead preemptionPolicy priority \
         priorityClassName readinessGates resourceClaims resources restartPolicy runtimeClassName schedulerName \
         schedulingGates securityContext serviceAccount serviceAccountName setHostnameAsFQDN shareProcessNamespace \
         subdomain terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes workloadRef",
    ),
    (
        &POD,
        &["spec", "containers"],
        "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe resizePolicy \
         resources restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce \
         terminationMessagePath terminationMessagePolicy tty volumeDevices volumeMounts workingDir",
    ),
    (
        &POD,
        &["spec", "initContainers", "ports"],
        "containerPort hostIP hostPort name protocol",
    ),
    (
        &POD,
        &["status"],
        "allocatedResources conditions containerStatuses ephemeralContainerStatuses extendedResourceClaimStatus hostIP \
         hostIPs initContainerStatuses message nominatedNodeName observedGeneration phase podIP podIPs qosClass \
         reason resize resourceClaimStatuses resources startTime",
    ),
    (&POD, &["status", "podIPs"], "ip"),
    (
        &POD,
        &["status", "conditions"],
        "lastProbeTime lastTransitionTime message observedGeneration reason status type",
    ),
    (
        &SERVICE,
        &["spec"],
        "allocateLoadBalancerNodePorts clusterIP clusterIPs externalIPs externalName externalTrafficPolicy \
         healthCheckNodePort internalTrafficPolicy ipFamilies ipFamily ipFamilyPolicy loadBalancerClass \
         loadBalancerIP loadBalancerSourceRanges ports publishNotReadyAddresses selector sessionAffinity \
         sessionAffinityConfig topologyKeys trafficDistribution type",
    ),
    (
        &SERVICE,
        &["spec", "ports"],
        "appProtocol name nodePort port protocol targetPort",
    ),
    (&SERVICE, &["spec", "sessionAffinityConfig"], "clientIP"),
    (
        &SERVICE,
        &["spec", "sessionAffinityConfig", "clientIP"],
        "timeoutSeconds",
    ),
    (
        &ENDPOINT_SLICE,
        &["endpoints"],
        "addresses conditions deprecatedTopology hints hostname nodeName targetRef topology zone",
    ),
    (
        &ENDPOINT_SLICE,
        &["endpoints", "conditions"],
        "ready serving terminating",
    ),
    (&ENDPOINT_SLICE, &["endpoints", "hints"], "forNodes forZones"),
    (&ENDPOINT_SLICE, &["endpoints", "hints", "forZones"], "name"),
    (&ENDPOINT_SLICE, &["endpoints", "hints", "forNodes"], "name"),
    (&ENDPOINT_SLICE, &["ports"], "appProtocol name port protocol"),
];

#[test]
fn no_field_of_kubernetes_is_taken_for_a_misspelt_one() {
    let tops = KUBERNETES.iter().map(|(level, fields)| (*level, *fields));
    let below = BELOW.iter().map(|(top, path, fields)| {
        let level = path.iter().fold(*top, |level, part| {
            let found = level.below.iter().find(|(name, _)| name == part);
            found
                .unwrap_or_else(|| panic!("nothing is looked at below {part} of {path:?}"))
                .1
        });
        (level, *fields)
    });
    let mut looked_at = 0;
    for (level, fields) in tops.chain(below) {
        let fields: Vec<_> = fields.split_whitespace().collect();
        for field in &fields {
            assert_eq!(level.meant_by(field), None, "{field}");
        }
        // And what is read has the name that Kubernetes gives it.
        for read in level.read.iter().chain(level.real) {
            assert!(fields.contains(read), "Kubernetes has no {read} there");
        }
        looked_at += 1;
    }
    assert_eq!(looked_at, KUBERNETES.len() + BELOW.len());
}

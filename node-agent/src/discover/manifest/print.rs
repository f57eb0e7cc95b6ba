//! Objects as manifests again: what was understood, defaults written out, nothing that is not used.

use serde_json::{Map, Value, json};
use tramline_core::authz::{
    AuthorizationPolicy, Condition, ConditionMatch, MatchList, Operation, Rule, Source, Target, TargetKind,
};
use tramline_core::labels::Selector;
use tramline_core::object::{
    EndpointSlice, Kind, Meta, Objects, Pod, ServiceObject, SliceEndpoint, TargetPort,
};
use tramline_core::peer_authentication::{Mode, PeerAuthentication};
use tramline_core::service::{Distribution, Readiness};

/// Stands for values that are read and not used: those of HTTP fields, the name of an authorizer.
pub const NOT_USED: &str = "(not used)";

/// A `List` of all objects, by kind, namespace and name. Reading it gives the same mesh.
pub fn list(objects: &Objects) -> Value {
    let Objects {
        namespaces,
        nodes,
        pods,
        services,
        endpoint_slices,
        service_accounts,
        peer_authentications,
        authorization_policies,
    } = objects;
    let mut items: Vec<(&Meta, Value)> = Vec::new();
    items.extend(namespaces.iter().map(|o| (&o.meta, json!({}))));
    items.extend(nodes.iter().map(|o| (&o.meta, json!({}))));
    items.extend(service_accounts.iter().map(|o| (&o.meta, json!({}))));
    items.extend(pods.iter().map(|o| (&o.meta, pod(o))));
    items.extend(services.iter().map(|o| (&o.meta, json!({"spec": service(o)}))));
    items.extend(endpoint_slices.iter().map(|o| (&o.meta, slice(o))));
    let specs = peer_authentications
        .iter()
        .map(|o| (&o.meta, peer_authentication(o)));
    let more = authorization_policies.iter().map(|o| (&o.meta, policy(o)));
    items.extend(
        specs
            .chain(more)
            .map(|(meta, spec)| (meta, json!({"spec": spec}))),
    );
    items.sort_by(|(a, _), (b, _)| {
        let key = |meta: &Meta| {
            (
                meta.object.kind,
                meta.object.namespace.clone(),
                meta.object.name.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    let items: Vec<Value> = items.into_iter().map(|(meta, rest)| object(meta, rest)).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn object(meta: &Meta, mut rest: Value) -> Value {
    let api = match meta.object.kind {
        Kind::EndpointSlice => "discovery.k8s.io/v1",
        Kind::PeerAuthentication | Kind::AuthorizationPolicy => "security.istio.io/v1",
        Kind::Namespace | Kind::Pod | Kind::Service | Kind::Node | Kind::ServiceAccount => "v1",
    };
    let mut metadata = Map::new();
    let mut put = |key: &str, value: Value| metadata.insert(key.to_owned(), value);
    put("name", json!(meta.object.name));
    if !meta.object.namespace.is_empty() {
        put("namespace", json!(meta.object.namespace));
    }
    if let Some(uid) = &meta.uid {
        put("uid", json!(uid));
    }
    for (key, labels) in [("labels", &meta.labels), ("annotations", &meta.annotations)] {
        if !labels.is_empty() {
            put(key, json!(labels));
        }
    }
    if let Some(created) = meta.created.as_str() {
        put("creationTimestamp", json!(created));
    }
    // What a kind has of its own in its metadata.
    if let Some(Value::Object(own)) = rest.as_object_mut().and_then(|rest| rest.remove("metadata")) {
        metadata.extend(own);
    }
    let mut made = json!({"apiVersion": api, "kind": meta.object.kind.to_string(), "metadata": metadata});
    if let (Value::Object(made), Value::Object(rest)) = (&mut made, rest) {
        made.extend(rest);
    }
    made
}

fn pod(pod: &Pod) -> Value {
    let mut metadata = Map::new();
    if pod.deleting {
        metadata.insert("deletionTimestamp".into(), json!("set"));
    }
    if let Some(owner) = &pod.owner {
        let owner = json!([{"kind": owner.kind, "name": owner.name, "controller": true}]);
        metadata.insert("ownerReferences".into(), owner);
    }
    let ports: Vec<Value> = pod
        .ports
        .iter()
        .map(|port| with_name(port.name.as_deref(), json!({"containerPort": port.port})))
        .collect();
    let ips: Vec<Value> = pod.addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "metadata": metadata,
        "spec": {
            "nodeName": pod.node,
            "serviceAccountName": pod.service_account.as_deref().unwrap_or("default"),
            "hostNetwork": pod.host_network,
            "containers": [{"ports": ports}],
        },
        "status": {
            "phase": if pod.ended { "Succeeded" } else { "Running" },
            "podIPs": ips,
            "conditions": [{"type": "Ready", "status": if pod.ready { "True" } else { "False" }}],
        },
    })
}

fn with_name(name: Option<&str>, mut value: Value) -> Value {
    if let (Some(name), Value::Object(fields)) = (name.filter(|name| !name.is_empty()), &mut value) {
        fields.insert("name".into(), json!(name));
    }
    value
}

fn service(service: &ServiceObject) -> Value {
    let ports: Vec<Value> = service
        .ports
        .iter()
        .map(|port| {
            let target = match &port.target {
                TargetPort::Number(number) => json!(number),
                TargetPort::Name(name) => json!(name),
            };
            let mut made = json!({"port": port.port, "targetPort": target});
            if let Some(protocol) = &port.app_protocol {
                made["appProtocol"] = json!(protocol);
            }
            with_name(Some(&port.name), made)
        })
        .collect();
    let addresses = match service.vips.as_slice() {
        [] => json!(["None"]),
        vips => json!(vips),
    };
    let mut spec = json!({
        "clusterIPs": addresses,
        "ports": ports,
        "selector": service.selector,
        "publishNotReadyAddresses": service.publish_not_ready,
        "internalTrafficPolicy": if service.node_local { "Local" } else { "Cluster" },
        "sessionAffinity": if service.session_affinity.is_some() { "ClientIP" } else { "None" },
    });
    if let Some(timeout) = service.session_affinity {
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": timeout.as_secs()}});
    }
    match service.distribution {
        Distribution::Anywhere => {}
        Distribution::SameZone => spec["trafficDistribution"] = json!("PreferSameZone"),
        Distribution::SameNode => spec["trafficDistribution"] = json!("PreferSameNode"),
    }
    spec
}

fn slice(slice: &EndpointSlice) -> Value {
    let mut addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    let v6 = addresses.next().is_some_and(|address| address.is_ipv6());
    let ports: Vec<Value> = slice
        .ports
        .iter()
        .map(|port| with_name(Some(&port.name), json!({"port": port.port})))
        .collect();
    let endpoints: Vec<Value> = slice.endpoints.iter().map(slice_endpoint).collect();
    json!({
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "ports": ports,
        "endpoints": endpoints,
    })
}

fn slice_endpoint(endpoint: &SliceEndpoint) -> Value {
    let conditions = match endpoint.readiness {
        Readiness::Ready => json!({"ready": true}),
        Readiness::NotReady => json!({"ready": false, "serving": false}),
        Readiness::Draining => json!({"ready": false, "serving": true, "terminating": true}),
    };
    let mut made = json!({"addresses": endpoint.addresses, "conditions": conditions});
    for (key, value) in [("nodeName", &endpoint.node), ("zone", &endpoint.zone)] {
        if let Some(value) = value {
            made[key] = json!(value);
        }
    }
    for (key, names) in [
        ("forZones", &endpoint.hints.zones),
        ("forNodes", &endpoint.hints.nodes),
    ] {
        if !names.is_empty() {
            let names: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            made["hints"][key] = json!(names);
        }
    }
    made
}

fn selector(selector: Option<&Selector>, spec: &mut Value) {
    if let Some(selector) = selector {
        spec["selector"] = json!({"matchLabels": selector.labels()});
    }
}

fn peer_authentication(policy: &PeerAuthentication) -> Value {
    let mode = |mode: Mode| match mode {
        Mode::Unset => json!({"mode": "UNSET"}),
        Mode::Permissive => json!({"mode": "PERMISSIVE"}),
        Mode::Strict => json!({"mode": "STRICT"}),
    };
    let mut spec = json!({"mtls": mode(policy.mode)});
    selector(policy.selector.as_ref(), &mut spec);
    for (port, of_port) in &policy.ports {
        spec["portLevelMtls"][port.to_string()] = mode(*of_port);
    }
    spec
}

fn policy(policy: &AuthorizationPolicy) -> Value {
    let mut spec = json!({"action": policy.action.as_str()});
    selector(policy.selector.as_ref(), &mut spec);
    match policy.targets.as_slice() {
        [] => {}
        [alone] if alone.alone => spec["targetRef"] = target(alone),
        targets => spec["targetRefs"] = targets.iter().map(target).collect(),
    }
    if policy.action.as_str() == "CUSTOM" {
        spec["provider"] = json!({"name": NOT_USED});
    }
    spec["rules"] = policy.rules.iter().map(rule).collect();
    spec
}

fn target(target: &Target) -> Value {
    let group = match target.kind {
        TargetKind::Gateway | TargetKind::GatewayClass => "gateway.networking.k8s.io",
        TargetKind::Service => "",
        TargetKind::ServiceEntry => "networking.istio.io",
    };
    json!({"group": group, "kind": target.kind.to_string(), "name": target.name})
}

fn rule(rule: &Rule) -> Value {
    let mut made = json!({});
    if !rule.from.is_empty() {
        made["from"] = rule
            .from
            .iter()
            .map(|from| json!({"source": source(from)}))
            .collect();
    }
    if !rule.to.is_empty() {
        made["to"] = rule
            .to
            .iter()
            .map(|to| json!({"operation": operation(to)}))
            .collect();
    }
    if !rule.when.is_empty() {
        made["when"] = rule.when.iter().map(condition).collect();
    }
    made
}

fn source(source: &Source) -> Value {
    let mut made = json!({});
    both(&mut made, ["principals", "notPrincipals"], &source.principals);
    both(&mut made, ["namespaces", "notNamespaces"], &source.namespaces);
    both(
        &mut made,
        ["serviceAccounts", "notServiceAccounts"],
        &source.service_accounts,
    );
    both(
        &mut made,
        ["trustDomains", "notTrustDomains"],
        &source.trust_domains,
    );
    both(&mut made, ["ipBlocks", "notIpBlocks"], &source.ip_blocks);
    unused(&mut made, &source.http);
    made
}

fn operation(operation: &Operation) -> Value {
    let mut made = json!({});
    both(&mut made, ["ports", "notPorts"], &operation.ports);
    unused(&mut made, &operation.http);
    made
}

fn condition(condition: &Condition) -> Value {
    fn of<T: ToString>(key: &str, list: &MatchList<T>) -> Value {
        let mut made = json!({"key": key});
        both(&mut made, ["values", "notValues"], list);
        made
    }
    match &condition.matches {
        ConditionMatch::SourceIp(list) => of("source.ip", list),
        ConditionMatch::SourceNamespace(list) => of("source.namespace", list),
        ConditionMatch::SourcePrincipal(list) => of("source.principal", list),
        ConditionMatch::SourceServiceAccount(list) => of("source.serviceAccount", list),
        ConditionMatch::SourceTrustDomain(list) => of("source.trustDomain", list),
        ConditionMatch::DestinationIp(list) => of("destination.ip", list),
        ConditionMatch::DestinationPort(list) => of("destination.port", list),
        ConditionMatch::Http(key) => json!({"key": key, "values": [NOT_USED]}),
    }
}

/// A field and its `not` twin, where they are given.
fn both<T: ToString>(made: &mut Value, [any, none]: [&str; 2], list: &MatchList<T>) {
    for (key, values) in [(any, &list.any), (none, &list.none)] {
        if !values.is_empty() {
            made[key] = values.iter().map(T::to_string).collect();
        }
    }
}

fn unused(made: &mut Value, fields: &[&'static str]) {
    for field in fields {
        made[*field] = json!([NOT_USED]);
    }
}

#[cfg(test)]
mod tests;

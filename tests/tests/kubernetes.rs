//! The manifests of deploy/kubernetes and the guide to them: read by Kubernetes' own schemas, held against the
//! configuration that they carry, and run as a kubelet would run them. No cluster is needed.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use carillon_config::Config;
use carillon_tasks::clock;
use carillon_tests::{
    client::Client,
    document::{Document, root},
    gateway::{self, PATIENCE},
    http,
    nats::{NatsServer, NatsVersion},
    process::Process,
};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

/// Pause between two looks at something that will change.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The first Kubernetes whose `preStop` sleeps without a switch, and the newest that has a schema.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// What the guide and its example are about.
const OVERLAY: &str = "deploy/kubernetes/overlays/three";

/// Reads YAML and writes it as JSON. Secrets are decoded, as a kubelet does it.
const TO_JSON: &str = r#"
import base64, json, sys, yaml
objects = [each for each in yaml.safe_load_all(open(sys.argv[1])) if each]
for each in objects:
    if each.get("kind") == "Secret":
        each["data"] = {name: base64.b64decode(value).decode() for name, value in each["data"].items()}
json.dump(objects, sys.stdout)
"#;

/// Lets the commands of the guide that make something print it instead; what needs a cluster is left out.
const WITHOUT_CLUSTER: &str = r#"
set -eu
kubectl() {
    case "$*" in
    *create*) command kubectl "$@" --dry-run=client -o yaml; echo --- ;;
    apply*-f*) cat "$3"; echo --- ;;
    label*) ;;
    *) echo "$*: unknown to the test" >&2; return 1 ;;
    esac
}
"#;

/// Notes the process's number and becomes the program.
const BECOME: &str = r#"echo "process $$"; exec "$@""#;

/// A new folder, removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("carillon-kubernetes-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }

    /// Makes one with a copy of the manifests, where the guide's commands find them.
    fn with_manifests() -> Self {
        let folder = Self::new();
        let (from, to) = (root().join("deploy/kubernetes"), folder.0.join("deploy"));
        fs::create_dir(&to).expect("the folder is ours");
        output(Command::new("cp").arg("-r").arg(from).arg(to));
        folder
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("it is in the folder")).expect("the folder is ours");
        fs::write(&path, text).expect("the folder is ours");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone_already = fs::remove_dir_all(&self.0).is_err();
    }
}

fn tools() -> PathBuf {
    let tools = root().join(".test-tools/kubernetes/python");
    assert!(tools.exists(), "{} is missing: run `make tools`", tools.display());
    tools
}

fn python(arguments: &[&str]) -> Command {
    let mut python = Command::new("python3");
    python.args(arguments).env("PYTHONPATH", tools());
    python
}

fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|fault| panic!("{command:?}: {fault}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Runs commands of the guide with our kubectl and our carillon, in a folder with a copy of the manifests.
fn shell(folder: &Folder, script: &str, environment: &[(&str, &str)]) -> String {
    let built = gateway::binary();
    let beside = built.parent().expect("a binary is in a folder").display();
    let path = std::env::var_os("PATH").expect("there is a PATH");
    let path = format!("{}/bin:{beside}:{}", tools().display(), path.display());
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).env("PATH", path).current_dir(&folder.0);
    output(shell.envs(environment.iter().copied()))
}

fn guide() -> Document {
    Document::read("docs/deploy-kubernetes.md")
}

/// Returns what kustomize makes of a folder, as it is.
fn rendered(folder: &Path) -> String {
    output(Command::new(tools().join("bin/kubectl")).arg("kustomize").arg(folder))
}

/// Returns the objects of a YAML text.
fn objects(yaml: &str) -> Vec<Value> {
    let folder = Folder::new();
    let file = folder.write("objects.yaml", yaml);
    let json = output(python(&["-c", TO_JSON]).arg(file));
    serde_json::from_str(&json).expect("python writes JSON")
}

/// Returns the objects of the overlay as it is, and the Secrets that the guide makes.
fn example() -> &'static [Value] {
    static EXAMPLE: OnceLock<Vec<Value>> = OnceLock::new();
    EXAMPLE.get_or_init(|| {
        let mut objects = objects(&rendered(&root().join(OVERLAY)));
        objects.extend(secrets(&Folder::with_manifests()));
        objects
    })
}

fn kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|each| each["kind"] == kind).collect()
}

/// Returns the only object of a kind.
fn only<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    let found = kind(objects, wanted);
    assert_eq!(found.len(), 1, "there is one {wanted}");
    found[0]
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list.as_array().and_then(|list| list.iter().find(|each| each["name"] == name));
    found.unwrap_or_else(|| panic!("`{name}` is not in {list}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text is expected, not {value}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("a list is expected, not {value}"))
}

fn seconds(value: &Value) -> Duration {
    Duration::from_secs(value.as_u64().unwrap_or_else(|| panic!("seconds are expected, not {value}")))
}

/// Says whether every label of `selector` is among `labels`.
fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().expect("a selector has labels");
    !selector.is_empty() && selector.iter().all(|(name, value)| labels[name] == *value)
}

/// Asks the schemas of a Kubernetes version; returns whether they accept the objects, and what was said.
fn validate(yaml: &str, version: &str) -> (bool, String) {
    let folder = Folder::new();
    let file = folder.write("objects.yaml", yaml);
    let mut validate = python(&["-m", "kubernetes_validate", "--strict", "-k", version]);
    let output = validate.arg(file).stdin(Stdio::null()).output().expect("there is python3");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// A pod of the Deployment, as a kubelet prepares it: its files, its arguments, its environment.
struct Pod {
    /// Stand in the place of `/`, and are there as long as the pod.
    _files: Folder,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    spec: Value,
    container: Value,
    labels: Value,
}

impl Pod {
    fn new(objects: &[Value]) -> Self {
        let template = &only(objects, "Deployment")["spec"]["template"];
        let spec = &template["spec"];
        let [container] = list(&spec["containers"]) else { panic!("there is one container") };
        let files = Folder::new();
        let mut places = Vec::new();
        for mount in list(&container["volumeMounts"]) {
            let inside = text(&mount["mountPath"]);
            let volume = named(&spec["volumes"], text(&mount["name"]));
            for source in list(&volume["projected"]["sources"]) {
                project(&files, inside, source, objects);
            }
            places.push((inside.to_owned(), files.0.join(inside.trim_start_matches('/'))));
        }
        let placed = |argument: &Value| {
            places.iter().fold(text(argument).to_owned(), |argument, (inside, outside)| {
                argument.replace(inside, &outside.to_string_lossy())
            })
        };
        let variable = |variable: &Value| {
            let value = match variable.pointer("/valueFrom/secretKeyRef") {
                None => text(&variable["value"]),
                Some(source) => content(objects, "Secret", source, &source["key"]),
            };
            (text(&variable["name"]).to_owned(), value.to_owned())
        };
        Self {
            arguments: list(&container["args"]).iter().map(placed).collect(),
            environment: list(&container["env"]).iter().map(variable).collect(),
            spec: spec.clone(),
            container: container.clone(),
            labels: template["metadata"]["labels"].clone(),
            _files: files,
        }
    }

    /// Returns what the program makes of its file and its environment.
    fn config(&self) -> Config {
        let [serve, flag, file] = &self.arguments[..] else { panic!("{:?}", self.arguments) };
        assert_eq!((serve.as_str(), flag.as_str()), ("serve", "--config"));
        Config::load(Some(Path::new(file)), self.environment.clone())
            .unwrap_or_else(|faults| panic!("{faults}"))
    }

    fn pre_stop(&self) -> Duration {
        seconds(&self.container["lifecycle"]["preStop"]["sleep"]["seconds"])
    }

    fn grace(&self) -> Duration {
        seconds(&self.spec["terminationGracePeriodSeconds"])
    }

    fn port(&self, name: &str) -> u64 {
        named(&self.container["ports"], name)["containerPort"].as_u64().expect("a port is a number")
    }
}

/// Writes the files that a source of a projected volume names.
fn project(files: &Folder, inside: &str, source: &Value, objects: &[Value]) {
    let (kind, source) = match (&source["configMap"], &source["secret"]) {
        (source @ Value::Object(_), Value::Null) => ("ConfigMap", source),
        (Value::Null, source @ Value::Object(_)) => ("Secret", source),
        other => panic!("{other:?} is unknown to the test"),
    };
    for item in list(&source["items"]) {
        let path = format!("{}/{}", inside.trim_start_matches('/'), text(&item["path"]));
        files.write(&path, content(objects, kind, source, &item["key"]));
    }
}

/// Returns the content of a ConfigMap or Secret that `source` names, in the namespace of the Deployment.
fn content<'a>(objects: &'a [Value], wanted: &str, source: &Value, key: &Value) -> &'a str {
    let namespace = &only(objects, "Deployment")["metadata"]["namespace"];
    let metadata = |each: &Value| {
        each["metadata"]["name"] == source["name"] && each["metadata"]["namespace"] == *namespace
    };
    let found = kind(objects, wanted).into_iter().find(|each| metadata(each));
    let found = found.unwrap_or_else(|| panic!("there is no {wanted} {source}"));
    found["data"][text(key)].as_str().unwrap_or_else(|| panic!("{wanted} {source} has no {key}"))
}

/// Makes the secrets as the guide does.
fn secrets(folder: &Folder) -> Vec<Value> {
    let [step, shop] = ["openssl rand", "namespace shop"].map(|part| guide().block("sh", part));
    objects(&shell(folder, &format!("{WITHOUT_CLUSTER}{step}\n{shop}"), &[]))
}

/// Returns the secret called `carillon` of a namespace.
fn secret<'a>(objects: &'a [Value], namespace: &str) -> &'a Value {
    let found = kind(objects, "Secret").into_iter().find(|each| each["metadata"]["namespace"] == namespace);
    let found = found.unwrap_or_else(|| panic!("there is no Secret in {namespace}"));
    assert_eq!(found["metadata"]["name"], "carillon");
    &found["data"]
}

#[test]
fn every_object_has_the_shape_that_kubernetes_knows() {
    for folder in ["deploy/kubernetes/base", OVERLAY] {
        let yaml = rendered(&root().join(folder));
        for version in VERSIONS {
            let (accepted, said) = validate(&yaml, version);
            assert!(accepted, "{folder}, {version}: {said}");
            let passed = said.lines().filter(|line| line.contains("passed for resource")).count();
            assert_eq!(passed, objects(&yaml).len(), "{folder}, {version}: {said}");
        }
    }
    let misspelt = rendered(&root().join(OVERLAY)).replace("preStop:", "prestop:");
    let (accepted, said) = validate(&misspelt, VERSIONS[0]);
    assert!(!accepted && said.contains("prestop"), "{said}");
}

#[test]
fn probes_and_services_find_the_listeners() {
    let objects = example();
    let pod = Pod::new(example());
    let config = pod.config();
    let listeners =
        [("public", config.public.listen), ("api", config.api.listen), ("admin", config.admin.listen)];
    for (name, listen) in listeners {
        assert_eq!(pod.port(name), u64::from(listen.port()), "{name}");
        assert!(listen.ip().is_unspecified(), "other pods reach {name}");
    }
    for (probe, path) in
        [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
    {
        assert_eq!(pod.container[probe]["httpGet"], json!({"port": "admin", "path": path}), "{probe}");
    }
    let annotations = &only(objects, "Deployment")["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(annotations["prometheus.io/port"], pod.port("admin").to_string());

    let services = kind(objects, "Service");
    let found: Vec<_> = services.iter().map(|each| text(&each["metadata"]["name"])).collect();
    assert_eq!(found, ["carillon", "carillon-admin", "carillon-api"]);
    for service in services {
        let (spec, name) = (&service["spec"], &service["metadata"]["name"]);
        assert!(selects(&spec["selector"], &pod.labels), "{name}");
        assert_eq!(spec["sessionAffinity"], Value::Null, "{name}: any node serves any client");
        let [port] = list(&spec["ports"]) else { panic!("{name} has one port") };
        assert_eq!(port["port"], pod.port(text(&port["targetPort"])), "{name}");
    }
}

#[test]
fn what_selects_the_pods_selects_these_pods() {
    let objects = example();
    let pod = Pod::new(example());
    let mut selectors: Vec<_> =
        ["Deployment", "PodDisruptionBudget"].map(|kind| &only(objects, kind)["spec"]["selector"]).into();
    let policy = &only(objects, "NetworkPolicy")["spec"];
    selectors.push(&policy["podSelector"]);
    let spread = list(&pod.spec["topologySpreadConstraints"]);
    assert_eq!(spread.len(), 2, "machines and zones");
    selectors.extend(spread.iter().map(|each| &each["labelSelector"]));
    for selector in selectors {
        assert!(selects(&selector["matchLabels"], &pod.labels), "{selector}");
    }

    let ports: Vec<_> = list(&policy["ingress"]).iter().map(|rule| text(&rule["ports"][0]["port"])).collect();
    assert_eq!(ports, ["public", "api", "admin"]);
    let from: Vec<_> = list(&policy["ingress"]).iter().map(|rule| &rule["from"]).collect();
    assert_eq!(from[0], &Value::Null, "clients come from anywhere");
    for from in &from[1..] {
        let labels = from[0]["namespaceSelector"]["matchLabels"].as_object().expect("these are guarded");
        assert_eq!((list(from).len(), labels.len()), (1, 1), "{from:?}");
    }
    let nats = &list(&policy["egress"])[1];
    let carillon_config::Broker::Nats(link) = pod.config().broker else { panic!("it uses NATS") };
    let port = nats["ports"][0]["port"].to_string();
    let namespace = text(&nats["to"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]);
    let end = format!(".{namespace}.svc.cluster.local:{port}");
    assert!(link.servers.iter().all(|server| server.ends_with(&end)), "{:?}", link.servers);
}

#[test]
fn there_is_time_to_move_every_client() {
    let objects = example();
    let deployment = &only(objects, "Deployment")["spec"];
    let pod = Pod::new(example());
    let (drain, grace) = (pod.config().node.drain, pod.config().node.grace);
    let reserve = Duration::from_secs(5);
    assert!(pod.grace() >= pod.pre_stop() + drain + grace + reserve);
    assert!(pod.pre_stop() > Duration::ZERO && drain > Duration::ZERO && grace > Duration::ZERO);
    // One node drains at a time.
    assert!(seconds(&deployment["minReadySeconds"]) >= pod.pre_stop() + drain);
    assert_eq!(deployment["strategy"]["rollingUpdate"], json!({"maxSurge": 1, "maxUnavailable": 0}));
    assert_eq!(only(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
    assert_eq!(deployment["replicas"], 3);
}

#[test]
fn the_memory_limit_holds_the_clients_that_are_let_in() {
    let pod = Pod::new(example());
    let mib = |amount: &Value| {
        let amount = text(amount);
        let (number, unit) = amount.split_at(amount.len() - 2);
        let number: usize = number.parse().expect("a whole number of MiB or GiB");
        number * if unit == "Gi" { 1024 } else { 1 }
    };
    let resources = &pod.container["resources"];
    let limit = mib(&resources["limits"]["memory"]);
    // An idle client takes less than 3 KiB here and 4 KiB in the kernel. As much again is for those that read slowly.
    let clients = pod.config().public.max_connections.get() * 7 / 1024;
    assert!(limit >= 2 * clients && limit <= 8 * clients, "{limit} MiB for {clients} MiB of clients");
    assert!(mib(&resources["requests"]["memory"]) <= limit);
    assert_eq!(resources["limits"]["cpu"], Value::Null, "a throttled node is late for everybody");
    assert!(pod.config().node.workers.get() <= 4, "not one for each core of a large machine");
}

#[test]
fn pods_may_do_nothing_but_serve() {
    let pod = Pod::new(example());
    assert_eq!(
        pod.container["securityContext"],
        json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        })
    );
    let user = pod.spec["securityContext"]["runAsUser"].to_string();
    let image = Document::read("deploy/Dockerfile").text;
    assert!(image.contains(&format!("\nUSER {user}:{user}\n")), "the image has another user than {user}");
    assert!(image.contains("\nENTRYPOINT [\"/carillon\"]\n"), "the arguments are for the program");
    assert_eq!(pod.spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod.spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(pod.spec["automountServiceAccountToken"], false);
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        assert_eq!(pod.spec[field], Value::Null, "{field}");
    }
}

#[test]
fn a_changed_configuration_rolls_the_nodes() {
    let folder = Folder::with_manifests();
    let overlay = folder.0.join(OVERLAY);
    let name = || {
        let objects = objects(&rendered(&overlay));
        let name = text(&only(&objects, "ConfigMap")["metadata"]["name"]).to_owned();
        let volume = &only(&objects, "Deployment")["spec"]["template"]["spec"]["volumes"][0];
        assert_eq!(volume["projected"]["sources"][0]["configMap"]["name"], name);
        name
    };
    let before = name();
    assert_eq!(before, name());
    let file = overlay.join("carillon.toml");
    let toml = fs::read_to_string(&file).unwrap();
    fs::write(file, toml.replace("\"news*\"", "\"news.*\"")).unwrap();
    assert_ne!(before, name());
}

#[test]
fn the_snippets_of_the_guide_fit_the_manifests() {
    let manifests = example();
    let pod = Pod::new(example());
    let snippet = |part: &str| guide().block("yaml", part);
    let object = |part: &str| objects(&snippet(part)).remove(0);

    let autoscaler = snippet("HorizontalPodAutoscaler");
    for version in VERSIONS {
        let (accepted, said) = validate(&autoscaler, version);
        assert!(accepted, "{version}: {said}");
    }
    let target = &object("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"];
    assert_eq!(target["name"], only(manifests, "Deployment")["metadata"]["name"]);

    let route = object("HTTPRoute");
    let [rule] = list(&route["spec"]["rules"]) else { panic!("{route}") };
    assert_eq!(rule["timeouts"], Value::Null);
    let service = kind(manifests, "Service")
        .into_iter()
        .find(|each| each["metadata"]["name"] == rule["backendRefs"][0]["name"])
        .expect("the route's Service exists");
    assert_eq!(rule["backendRefs"][0]["port"], service["spec"]["ports"][0]["port"]);
    assert_eq!(service["spec"]["ports"][0]["targetPort"], "public");

    let monitor = &object("PodMonitor")["spec"];
    assert!(selects(&monitor["selector"]["matchLabels"], &pod.labels));
    assert!(pod.port(text(&monitor["podMetricsEndpoints"][0]["port"])) > 0);

    let values = object("CARILLON_PASSWORD");
    let password = &values["container"]["env"]["CARILLON_PASSWORD"]["valueFrom"]["secretKeyRef"];
    assert_eq!(password["name"], "carillon");
    assert_eq!(
        secret(manifests, "nats")[text(&password["key"])],
        secret(manifests, "carillon")["nats-password"]
    );
    let user = &values["config"]["merge"]["authorization"]["users"][0]["user"];
    assert_eq!(*user, secret(manifests, "carillon")["nats-user"]);

    let folder = Folder::with_manifests();
    let kustomization = folder.0.join(OVERLAY).join("kustomization.yaml");
    let own = fs::read_to_string(&kustomization).unwrap();
    let (before, after) = own.split_once("images:\n").unwrap();
    let (_, after) = after.split_once("\n\n").unwrap();
    fs::write(&kustomization, format!("{before}{}\n\n{after}", snippet("newTag"))).unwrap();
    let objects = objects(&rendered(&folder.0.join(OVERLAY)));
    let image = text(&only(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"]);
    assert!(guide().block("sh", "docker push").contains(&format!("docker push {image} ")), "{image}");
}

/// An installation by the guide: the manifests with a key of their own, and what the guide made.
struct Installed {
    folder: Folder,
    key: String,
    secrets: Vec<Value>,
    pod: Pod,
}

impl Installed {
    fn new() -> Self {
        let folder = Folder::with_manifests();
        let secrets = secrets(&folder);
        let printed = shell(&folder, &guide().block("sh", "carillon key new"), &[]);
        let (key, lines) = printed.split_once("\n\n").expect("the key comes first");
        let lines = &lines[lines.find("[[keys]]").expect("then its lines")..];
        let file = folder.0.join(OVERLAY).join("carillon.toml");
        let toml = fs::read_to_string(&file).expect("it was copied");
        let (before, after) = toml.split_once("[[keys]]").expect("there is an example");
        let (_, after) = after.split_once("\n\n").expect("a blank line ends it");
        fs::write(file, format!("{before}{}\n\n{after}", lines.trim_end())).expect("the folder is ours");

        let step = guide().block("sh", "carillon check");
        let commands: Vec<_> =
            step.split_inclusive('\n').filter(|line| !line.contains("kubectl -n")).collect();
        let commands = commands.concat().replace("kubectl apply -k", ": not here:");
        let token = text(&secret(&secrets, "carillon")["token.key"]);
        let shown = shell(&folder, &commands, &[("token", token)]);
        let yaml = shown.strip_prefix("the configuration is good\n").unwrap_or_else(|| panic!("{shown}"));
        let mut objects = objects(yaml);
        objects.extend(secrets.iter().cloned());
        let pod = Pod::new(&objects);
        Self { folder, key: key.to_owned(), secrets, pod }
    }

    /// Starts the NATS of the guide, whose users are those of its values.
    fn nats(&self) -> NatsServer {
        let secret = secret(&self.secrets, "nats");
        let password = text(&secret["nats-password"]);
        let user = format!("authorization: {{users: [{{user: carillon, password: {password}}}]}}");
        NatsServer::start_with(NatsVersion::Newest, "", &user)
    }

    /// Starts the pod's program: as the manifests say, but on this machine alone, and quicker to drain.
    fn start(&self, nats: &NatsServer) -> Process {
        let mut program = Command::new("sh");
        program.args(["-c", BECOME, "sh"]).arg(gateway::binary()).args(&self.pod.arguments);
        program.env_clear().envs(self.pod.environment.iter().cloned());
        let free = "127.0.0.1:0";
        Process::start(program.envs([
            ("CARILLON__PUBLIC__LISTEN", free),
            ("CARILLON__API__LISTEN", free),
            ("CARILLON__ADMIN__LISTEN", free),
            ("CARILLON__NODE__DRAIN", "3s"),
            ("CARILLON__BROKER__NATS__SERVERS", &nats.url()),
            ("CARILLON__BROKER__NATS__REPLICAS", "1"),
        ]))
    }

    /// Makes a token for the orders, as an application does it.
    fn token(&self) -> String {
        let key = EncodingKey::from_secret(text(&secret(&self.secrets, "shop")["token.key"]).as_bytes());
        let claims =
            json!({"sub": "7", "channels": ["orders.7"], "exp": clock::since_1970().as_secs() + 3600});
        jsonwebtoken::encode(&Header::default(), &claims, &key).expect("claims can be signed")
    }
}

/// Waits until a probe succeeds.
async fn succeeds(probe: &Value, admin: SocketAddr) {
    let path = text(&probe["httpGet"]["path"]);
    let asking = async {
        while http::get(admin, path).await.status != 200 {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_late| panic!("{path} does not succeed"));
}

#[tokio::test]
async fn a_node_serves_and_stops_as_the_manifests_say() {
    let installed = Installed::new();
    let nats = installed.nats();
    let mut node = installed.start(&nats);
    let line: Value = serde_json::from_str(&node.complains("\"listening\"")).expect("the log is JSON");
    let fields = line.get("fields").unwrap_or(&line);
    let [public, api, admin]: [SocketAddr; 3] =
        ["public", "api", "admin"].map(|name| text(&fields[name]).parse().expect("an address"));
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        succeeds(&installed.pod.container[probe], admin).await;
    }

    let url = format!("ws://{public}/v1/ws?token={}&", installed.token());
    let mut client = Client::subscribed(&url, &["orders.7", "news"]).await;
    let authorization = format!("Bearer {}", installed.key);
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
    let order = json!({"channel": "orders.7", "data": "shipped"}).to_string();
    let answer = http::post(api, "/v1/publish", &headers, order).await;
    assert_eq!(
        (answer.status, &answer.json()["results"][0]["stored"]),
        (200, &json!(true)),
        "{}",
        answer.body
    );
    assert_eq!(client.data().await, "shipped");

    let guide = guide();
    let line = |part: &str| {
        let block = guide.block("sh", part);
        block.lines().find(|line| line.contains(part)).expect("it is in the block").trim().to_owned()
    };
    let publish = format!("{} --api http://{api}", line("carillon publish"));
    shell(&installed.folder, &publish, &[("key", &installed.key)]);
    assert_eq!(client.data().await, json!({"hello": "world"}));
    let count = line("curl -s").replace("127.0.0.1:9000", &admin.to_string());
    let counted = shell(&installed.folder, &count, &[]);
    assert!(counted.lines().any(|line| line.ends_with("} 1")), "{counted}");

    let process = node.says("process ");
    let number = process.strip_prefix("process ").expect("it was asked for");
    output(Command::new("kill").args(["-s", "TERM", number]));
    let (code, _) = client.closed().await;
    assert!(guide.text.contains(&format!("told goodbye with {code}")), "{code}");
    let left = installed.pod.grace() - installed.pod.pre_stop();
    let began = clock::now();
    while !node.has_ended() {
        assert!(clock::now() - began < left, "Kubernetes would kill it");
        sleep(LOOK_AGAIN).await;
    }
    let (status, _, log) = node.ended();
    assert_eq!(status.code(), Some(0), "{log}");
}

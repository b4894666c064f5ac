//! The image, built as `make image` builds it, and the program in it run as a container runtime runs it: the first
//! process of its own, a user without a name, no capability, and nothing that can be written.
#![expect(clippy::disallowed_methods, reason = "the tests wait for processes, outside any runtime")]

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use carillon_tests::{
    client::Client,
    gateway::{self, PATIENCE},
    http,
    nats::{NatsServer, NatsVersion},
};
use serde_json::{Value, json};

/// Pause between two looks at something that will change.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The user of the image.
const USER: &str = "65532";

/// What a container runtime does before it starts the program. Arguments: the root; the configuration; a file to put
/// in the place of the roots of trust, or `-`; then what to run in that root, with its environment.
const RUNTIME: &str = r#"
set -eu
root=$1 config=$2 trusted=$3
shift 3
mkdir -p "$root/proc" "$root/etc/carillon"
printf '%s\n' "$config" >"$root/etc/carillon/carillon.toml"
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
[ "$trusted" = - ] || mount --bind "$trusted" "$root/etc/ssl/certs/ca-certificates.crt"
mount -o remount,bind,ro "$root"
ip link set lo up
exec env -i "$@"
"#;

/// A command that runs as root, through sudo where we are not.
fn as_root(program: &str) -> Command {
    let id = Command::new("id").arg("-u").output().expect("there is `id`");
    if id.stdout == b"0\n" {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--non-interactive", program]);
    command
}

fn output(command: &mut Command) -> String {
    let output =
        command.output().unwrap_or_else(|fault| panic!("{command:?}: {fault}; run `make tools static`"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let complaints = text(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{}{complaints}", output.status, text(&output.stdout));
    text(&output.stdout).trim_end().to_owned()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the root").to_owned()
}

/// A new folder, removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("carillon-image-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left_over = as_root("rm").arg("-rf").arg(&self.0).status().is_err();
    }
}

/// The image, in a storage of its own.
struct Image {
    folder: Folder,
    /// What its containers see.
    root: PathBuf,
    /// Its configuration, as Docker writes it.
    config: Value,
}

impl Image {
    fn build() -> Self {
        let folder = Folder::new();
        let at = folder.0.display();
        // A storage that nobody else uses, and that needs nothing of the kernel.
        let buildah = format!("buildah --root {at}/images --runroot {at}/run --storage-driver vfs");
        let run = |arguments: &str| {
            let mut words = buildah.split(' ').chain(arguments.split(' '));
            output(as_root(words.next().expect("buildah")).args(words))
        };
        let binary = repository().join("target/image/carillon");
        assert!(binary.exists(), "{} is missing: run `make static`", binary.display());
        // The recipe of the Makefile, without building the binary again.
        let build = format!("BUILD={buildah} build --format docker --isolation chroot");
        let make = ["-o", "static", "image", "IMAGE=carillon:test", &build];
        output(as_root("make").current_dir(repository()).args(make));
        let inspected: Value =
            serde_json::from_str(&run("inspect --type image carillon:test")).expect("buildah speaks JSON");
        let container = run("from --pull-never carillon:test");
        let root = run(&format!("mount {container}")).into();
        Self { folder, root, config: inspected["Docker"]["config"].clone() }
    }

    fn words(&self, name: &str) -> Vec<String> {
        serde_json::from_value(self.config[name].clone())
            .unwrap_or_else(|_| panic!("{name}: {}", self.config))
    }

    /// Starts a container: in a network of its own, or in ours. Without arguments it does what it does by default.
    fn start(&self, own_network: bool, options: &Options<'_>) -> Container {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let log = self.folder.0.join(format!("log-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = File::create(&log).expect("the folder is ours");
        let mut command = as_root("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child"]).args(own_network.then_some("--net"));
        command.args(["sh", "-c", RUNTIME, "sh"]).arg(&self.root);
        command.arg(options.config).arg(options.trusted.unwrap_or(Path::new("-")));
        command.args(self.words("Env")).args(options.environment);
        // Nothing is gained on the way: the user has no capability, and can get none.
        command.args([
            "setpriv",
            "--no-new-privs",
            "chroot",
            &format!("--userspec={}", self.user()),
            "--groups=",
        ]);
        command.arg(&self.root).args(self.words("Entrypoint"));
        match options.arguments {
            [] => command.args(self.words("Cmd")),
            arguments => command.args(arguments),
        };
        let errors = file.try_clone().expect("there are descriptors");
        let child = command.stdout(file).stderr(errors).spawn().expect("there is `unshare`");
        Container { child, log }
    }

    fn user(&self) -> &str {
        self.config["User"].as_str().expect("the image names its user")
    }
}

/// What a container is started with.
#[derive(Default)]
struct Options<'a> {
    config: &'a str,
    trusted: Option<&'a Path>,
    environment: &'a [String],
    arguments: &'a [&'a str],
}

/// A running container, ended when it is dropped.
struct Container {
    child: Child,
    log: PathBuf,
}

impl Container {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for a line of its log that contains `part`, and returns it.
    fn logged(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.child.try_wait().expect("it is our child");
            let log = self.log();
            // A line that is not complete has no end.
            if let Some(line) =
                log.split_inclusive('\n').find(|line| line.contains(part) && line.ends_with('\n'))
            {
                return line.to_owned();
            }
            assert!(ended.is_none() && Instant::now() < deadline, "`{part}` is not logged: {ended:?}\n{log}");
            sleep(LOOK_AGAIN);
        }
    }

    /// Waits until it listens, and returns the addresses for clients, publishers and probes.
    fn listening(&mut self) -> [SocketAddr; 3] {
        let line: Value = serde_json::from_str(&self.logged("\"listening\"")).expect("the log is JSON");
        let fields = line.get("fields").unwrap_or(&line);
        ["public", "api", "admin"]
            .map(|name| fields[name].as_str().and_then(|at| at.parse().ok()).expect("an address"))
    }

    /// Returns the program's number, as the machine counts: the last of the processes that lead to it.
    fn pid(&self) -> u32 {
        let mut pid = self.child.id();
        while let Some(child) = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
            .ok()
            .and_then(|children| children.split(' ').next()?.parse().ok())
        {
            pid = child;
        }
        pid
    }

    /// Runs the program once more in this container, as `docker exec` does.
    fn exec(&self, arguments: &[&str]) -> Command {
        let mut command = as_root("nsenter");
        command.args(["--target", &self.pid().to_string(), "--mount", "--net", "--pid", "--root"]);
        command.args(["--setuid", USER, "--setgid", USER, "/carillon"]).args(arguments);
        command
    }

    fn signal(&self, name: &str) {
        output(as_root("kill").args(["-s", name, &self.pid().to_string()]));
    }

    fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < deadline, "the container does not end\n{}", self.log());
            sleep(LOOK_AGAIN);
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            // Through sudo where we are not root: the program is not ours to kill.
            let _ended_already =
                as_root("kill").args(["-s", "KILL", &self.pid().to_string()]).status().is_err();
            let _reaped = self.child.wait().is_err();
        }
    }
}

/// A configuration with one public channel, and a key that may publish.
fn config(more: &str) -> (String, String) {
    let (code, printed, complaints) = gateway::run(&["key", "new"], &[]);
    assert_eq!(code, Some(0), "{complaints}");
    let (key, _) = printed.split_once('\n').expect("the key is the first line");
    let keys = &printed[printed.find("[[keys]]").expect("its configuration follows")..];
    let config = format!(
        "{keys}\n{more}\n[log]\nformat = \"json\"\n\
         [[channels]]\nname = \"all\"\nmatch = \"*\"\nhistory = \"short\"\nauth = \"public\"\n"
    );
    (config, key.to_owned())
}

#[test]
fn it_holds_the_program_the_roots_of_trust_and_nothing_else() {
    let image = Image::build();
    assert_eq!(image.user(), format!("{USER}:{USER}"));
    assert_eq!(image.words("Entrypoint"), ["/carillon"]);
    assert_eq!(image.words("Cmd"), ["serve", "--config", "/etc/carillon/carillon.toml"]);
    let healthcheck: Vec<String> =
        serde_json::from_value(image.config["Healthcheck"]["Test"].clone()).unwrap();
    assert_eq!(healthcheck, ["CMD", "/carillon", "healthcheck"], "without a shell");
    let ports = image.config["ExposedPorts"].as_object().unwrap();
    assert_eq!(ports.keys().collect::<Vec<_>>(), ["8000/tcp", "8001/tcp", "9000/tcp"]);
    assert_eq!(image.config["Labels"]["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
    let revision = image.config["Labels"]["org.opencontainers.image.revision"].as_str().unwrap();
    assert!(revision.len() == 12 && revision.bytes().all(|b| b.is_ascii_hexdigit()), "{revision}");

    let files = output(as_root("find").arg(&image.root).args(["-type", "f", "-printf", "%P %m %u\n"]));
    let mut files: Vec<_> = files.lines().collect();
    files.sort_unstable();
    assert_eq!(files, ["carillon 755 root", "etc/ssl/certs/ca-certificates.crt 644 root"]);
    let binary = image.root.join("carillon");
    let kind = output(as_root("file").arg("--brief").arg(&binary));
    assert!(kind.contains("static") && !kind.contains("interpreter"), "{kind}");
    let megabytes = fs::metadata(binary).unwrap().len() / 1_000_000;
    assert!((5..40).contains(&megabytes), "{megabytes} MB: are the lines of code still in it?");
}

#[test]
fn it_needs_no_rights_and_no_place_to_write() {
    let image = Image::build();
    let (config, key) = config("[node]\ndrain = \"1s\"\n[broker]\nkind = \"memory\"");
    let mut down = image.start(true, &Options { arguments: &["healthcheck"], ..Options::default() });
    assert_eq!(down.ended().code(), Some(1), "nobody is there to be healthy: {}", down.log());

    let mut container = image.start(true, &Options { config: &config, ..Options::default() });
    container.listening();
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid())).unwrap();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("no {name}: {status}")).split('\t').collect::<Vec<_>>()
    };
    assert_eq!((line("Uid"), line("Gid")), (vec![USER; 4], vec![USER; 4]));
    assert_eq!(line("NSpid").last(), Some(&"1"), "the first process of its container");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(line(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(line("NoNewPrivs"), ["1"]);
    let mounts = output(as_root("cat").arg(format!("/proc/{}/mountinfo", container.pid())));
    let root = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|fields| fields[4] == "/");
    assert!(root.unwrap()[5].split(',').any(|option| option == "ro"), "{mounts}");

    for arguments in [&["healthcheck"][..], &["healthcheck", "--ready"]] {
        output(&mut container.exec(arguments));
    }
    output(&mut container.exec(&["publish", "news", "{\"hello\":\"world\"}", "--key", &key]));
    container.signal("TERM");
    assert_eq!(container.ended().code(), Some(0), "{}", container.log());
}

#[tokio::test]
async fn it_trusts_what_is_mounted_and_says_goodbye_to_its_clients() {
    let image = Image::build();
    let (certificate, key) = (image.folder.0.join("certificate.pem"), image.folder.0.join("key.pem"));
    let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=test \
                   -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE -keyout";
    output(Command::new("openssl").args(request.split_whitespace()).arg(&key).arg("-out").arg(&certificate));
    let tls = format!("tls {{ cert_file: {certificate:?}, key_file: {key:?} }}");
    let nats = NatsServer::start_with(NatsVersion::Newest, "", &tls);
    let (config, api_key) = config("");
    let environment = [
        "PUBLIC__LISTEN=127.0.0.1:0".to_owned(),
        "API__LISTEN=127.0.0.1:0".to_owned(),
        "ADMIN__LISTEN=127.0.0.1:0".to_owned(),
        "NODE__DRAIN=1s".to_owned(),
        "BROKER__KIND=nats".to_owned(),
        format!("BROKER__NATS__SERVERS={}", nats.url().replace("nats://", "tls://")),
        "BROKER__NATS__REPLICAS=1".to_owned(),
    ]
    .map(|setting| format!("CARILLON__{setting}"));
    let options = Options { config: &config, environment: &environment, ..Options::default() };

    let mut stranger = image.start(false, &options);
    stranger.listening();
    let fault = stranger.logged("invalid peer certificate");
    assert!(fault.contains("UnknownIssuer"), "the image has roots of trust, without this one: {fault}");
    drop(stranger);

    let mut container = image.start(false, &Options { trusted: Some(&certificate), ..options });
    let [public, api, admin] = container.listening();
    let deadline = Instant::now() + PATIENCE;
    while http::get(admin, "/readyz").await.status != 200 {
        assert!(Instant::now() < deadline, "it is never ready\n{}", container.log());
        sleep(LOOK_AGAIN);
    }
    assert_eq!(http::get(admin, "/livez").await.status, 200);
    let mut client = Client::subscribed(&format!("ws://{public}/v1/ws?"), &["news"]).await;
    let authorization = format!("Bearer {api_key}");
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
    let message = json!({"channel": "news", "data": {"hello": "world"}});
    let answer = http::post(api, "/v1/publish", &headers, message.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(client.data().await, json!({"hello": "world"}));

    container.signal("TERM");
    let (code, reason) = client.closed().await;
    assert!((4200..4300).contains(&code), "{code} {reason}");
    drop(client);
    assert_eq!(container.ended().code(), Some(0), "{}", container.log());
}

#[test]
fn hadolint_has_nothing_to_say() {
    let hadolint = repository().join(".test-tools/linters/python/bin/hadolint");
    assert!(hadolint.exists(), "hadolint is not installed: run `make tools`");
    output(Command::new(hadolint).arg(repository().join("deploy/Dockerfile")));
}

//! ActiveMQ: Java on Debian's jars, without the package's own start script, which insists on its user.

use std::env;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::certificates::Certificates;
use crate::ports;
use crate::process::{self, Process};

/// Where Debian has jars.
const JARS: &str = "/usr/share/java";
/// What the broker and clients need of them. Some are there under one of several names.
const NEEDED: [&str; 26] = [
    "activemq-broker",
    "activemq-client",
    "activemq-console",
    "activemq-jaas",
    "activemq-kahadb-store",
    "activemq-openwire-legacy",
    "activemq-protobuf",
    "activemq-spring",
    "activemq-stomp",
    "geronimo-j2ee-management-1.1-spec",
    "geronimo-jms_1.1_spec",
    "hawtbuf",
    "jcl-over-slf4j",
    "slf4j-api",
    "slf4j-simple",
    "spring3-aop",
    "spring3-beans",
    "spring3-context",
    "spring3-core",
    "spring3-expression",
    "spring-aop",
    "spring-beans",
    "spring-context",
    "spring-core",
    "spring-expression",
    "xbean-spring",
];
const KEYSTORE_PASSWORD: &str = "changeit";

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) openwire: u16,
    pub(crate) ssl: u16,
    pub(crate) stomp: u16,
}

impl Ports {
    pub(super) fn free() -> Result<Self> {
        let [openwire, ssl, stomp] = ports::free()?;
        Ok(Self { openwire, ssl, stomp })
    }
}

/// What may be chosen, as `key=value`.
#[derive(Default)]
struct Choices {
    /// `connector=…`: further options of the connectors, joined by `&amp;`.
    connector: Vec<String>,
    /// `policy=…`: XML inside the policy of every queue.
    policy: String,
    /// `store=…`: the folder of the messages; two nodes on one are an active one and its standby.
    store: Option<PathBuf>,
    /// `jit=full`: for measurements. Otherwise Java starts fast and stays slow.
    full_jit: bool,
}

impl Choices {
    fn read(conf: &[String]) -> Result<Self> {
        let mut choices = Self::default();
        for line in conf {
            match line.split_once('=') {
                Some(("connector", option)) => choices.connector.push(option.to_owned()),
                Some(("policy", xml)) => choices.policy.push_str(xml),
                Some(("store", folder)) => choices.store = Some(folder.into()),
                Some(("jit", "full")) => choices.full_jit = true,
                _ => bail!("`{line}` is none of connector=OPTION, policy=XML, store=FOLDER, jit=full"),
            }
        }
        Ok(choices)
    }
}

/// Everything that runs on Java here needs these.
pub(crate) fn classpath() -> String {
    let jar = |name: &&str| Path::new(JARS).join(format!("{name}.jar"));
    let paths = NEEDED.iter().map(jar).filter(|path| path.exists());
    paths.map(|path| path.display().to_string()).collect::<Vec<_>>().join(":")
}

/// What tests read to find the node.
pub(super) fn environment(folder: &Path, ports: Ports) -> Vec<(&'static str, String)> {
    let certificates = Certificates::at(&folder.join("tls"));
    let path = |path: &Path| path.display().to_string();
    vec![
        ("ESM_TEST_ACTIVEMQ_URL", format!("tcp://127.0.0.1:{}", ports.openwire)),
        ("ESM_TEST_ACTIVEMQ_TLS_URL", format!("ssl://localhost:{}", ports.ssl)),
        ("ESM_TEST_ACTIVEMQ_STOMP_URL", format!("127.0.0.1:{}", ports.stomp)),
        ("ESM_TEST_ACTIVEMQ_CA_FILE", path(&certificates.ca)),
        ("ESM_TEST_ACTIVEMQ_CLIENT_CERT_FILE", path(&certificates.client)),
        ("ESM_TEST_ACTIVEMQ_CLIENT_KEY_FILE", path(&certificates.client_key)),
        ("ESM_TEST_ACTIVEMQ_DIR", path(folder)),
    ]
}

pub(super) fn configure(folder: &Path, ports: Ports, conf: &[String]) -> Result<()> {
    let choices = Choices::read(conf)?;
    let tls = folder.join("tls");
    Certificates::create(&tls)?;
    to_keystores(&tls)?;
    fs::write(folder.join("activemq.xml"), xml(folder, ports, &choices))?;
    fs::write(folder.join("login.config"), LOGIN)?;
    fs::write(folder.join("users.properties"), "admin=admin\nguest=guest\nvisitor=visitor\n")?;
    fs::write(folder.join("groups.properties"), "admins=admin\nusers=admin,guest,visitor\n")?;
    let collector = if choices.full_jit {
        "-Xms1g\n-Xmx1g\n"
    } else {
        "-Xmx512m\n-XX:+UseSerialGC\n-XX:TieredStopAtLevel=1\n-Xshare:auto\n"
    };
    fs::write(folder.join("java.options"), collector)?;
    Ok(())
}

/// Java reads keys and authorities in formats of its own.
fn to_keystores(folder: &Path) -> Result<()> {
    let run = |program: &str, arguments: &[&str]| {
        process::output(Command::new(program).current_dir(folder).args(arguments)).map(drop)
    };
    let password = format!("pass:{KEYSTORE_PASSWORD}");
    let server = ["pkcs12", "-export", "-in", "server.pem", "-inkey", "server.key", "-name", "broker"];
    run("openssl", &[&server[..], &["-passout", &password, "-out", "server.p12"]].concat())?;
    let authority = ["-importcert", "-noprompt", "-alias", "authority", "-file", "ca.pem", "-keystore", "trust.p12"];
    run("keytool", &[&authority[..], &["-storetype", "PKCS12", "-storepass", KEYSTORE_PASSWORD]].concat())
}

/// Who says no name is `anonymous`; users and groups are read again when their files change.
const LOGIN: &str = r#"private {
  org.apache.activemq.jaas.GuestLoginModule sufficient
    credentialsInvalidate=true
    org.apache.activemq.jaas.guest.user="anonymous"
    org.apache.activemq.jaas.guest.group="anonymous";
  org.apache.activemq.jaas.PropertiesLoginModule requisite
    reload=true
    org.apache.activemq.jaas.properties.user="users.properties"
    org.apache.activemq.jaas.properties.group="groups.properties";
};
"#;

fn xml(folder: &Path, ports: Ports, choices: &Choices) -> String {
    let Ports { openwire, ssl, stomp } = ports;
    let folder = folder.display();
    let store = choices.store.as_ref().map_or_else(|| format!("{folder}/kahadb"), |store| store.display().to_string());
    let options: String = choices.connector.iter().map(|option| format!("&amp;{option}")).collect();
    let policy = &choices.policy;
    format!(
        r#"<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans.xsd
                      http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" brokerName="private" dataDirectory="{folder}/data"
          tmpDataDirectory="{folder}/tmp" useJmx="false" schedulerSupport="false" populateJMSXUserID="true">
    <destinationPolicy><policyMap><policyEntries>
      <policyEntry queue="&gt;" memoryLimit="256mb">{policy}</policyEntry>
    </policyEntries></policyMap></destinationPolicy>
    <persistenceAdapter>
      <kahaDB directory="{store}" journalMaxFileLength="32mb" lockKeepAlivePeriod="0">
        <locker><shared-file-locker lockAcquireSleepInterval="200"/></locker>
      </kahaDB>
    </persistenceAdapter>
    <plugins>
      <jaasAuthenticationPlugin configuration="private"/>
      <authorizationPlugin><map><authorizationMap><authorizationEntries>
        <authorizationEntry queue="&gt;" read="admins" write="admins" admin="admins"/>
        <authorizationEntry queue="test.&gt;" read="users" write="users" admin="users"/>
        <authorizationEntry queue="ready.&gt;" read="users" write="users" admin="admins"/>
        <authorizationEntry queue="stomp.&gt;" read="users" write="anonymous,users" admin="anonymous,users"/>
        <authorizationEntry topic="&gt;" read="admins" write="admins" admin="admins"/>
        <authorizationEntry topic="VirtualTopic.&gt;" read="users" write="users" admin="users"/>
        <authorizationEntry topic="ActiveMQ.Advisory.&gt;" read="users" write="anonymous,users" admin="anonymous,users"/>
      </authorizationEntries></authorizationMap></map></authorizationPlugin>
    </plugins>
    <sslContext><sslContext keyStore="file:{folder}/tls/server.p12" keyStorePassword="{KEYSTORE_PASSWORD}" keyStoreType="PKCS12"
      trustStore="file:{folder}/tls/trust.p12" trustStorePassword="{KEYSTORE_PASSWORD}" trustStoreType="PKCS12"/></sslContext>
    <systemUsage><systemUsage>
      <memoryUsage><memoryUsage limit="256mb"/></memoryUsage>
      <storeUsage><storeUsage limit="20gb"/></storeUsage>
    </systemUsage></systemUsage>
    <transportConnectors>
      <transportConnector name="openwire" uri="tcp://127.0.0.1:{openwire}?wireFormat.maxFrameSize=104857600{options}"/>
      <transportConnector name="ssl" uri="ssl://127.0.0.1:{ssl}?wireFormat.maxFrameSize=104857600&amp;transport.wantClientAuth=true{options}"/>
      <transportConnector name="stomp" uri="stomp://127.0.0.1:{stomp}"/>
    </transportConnectors>
  </broker>
</beans>
"#
    )
}

pub(super) fn spawn_broker(folder: &Path, log: File) -> Result<Process> {
    let options = fs::read_to_string(folder.join("java.options")).context("the node has no java.options")?;
    let property = |name: &str, path: PathBuf| format!("-D{name}={}", path.display());
    let mut command = Command::new("java");
    command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("LANG", "C.UTF-8");
    command
        .current_dir(folder)
        .args(options.lines())
        .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=info")
        .arg(property("java.security.auth.login.config", folder.join("login.config")))
        .arg(property("activemq.home", folder.to_owned()))
        .arg(property("activemq.base", folder.to_owned()))
        .arg(property("activemq.conf", folder.to_owned()))
        .arg(property("activemq.data", folder.join("data")))
        .args(["-cp", &classpath(), "org.apache.activemq.console.Main", "start"])
        .arg(format!("xbean:file:{}", folder.join("activemq.xml").display()));
    process::spawn_detached(command.stdout(log.try_clone()?).stderr(log))
}

/// A broker begins to speak at once: its `WireFormatInfo` holds this word, after length and type.
pub(super) fn answers(ports: Ports) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, ports.openwire))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut first = [0; 13];
        stream.read_exact(&mut first)?;
        Ok(first.ends_with(b"ActiveMQ"))
    };
    ask().unwrap_or(false)
}

/// Whether it waits for another node to give up the store. What an earlier life of it has logged does not count.
pub(super) fn stands_by(log: &str) -> bool {
    let this_life = log.rfind("Refreshing org.apache.activemq").map_or(log, |start| &log[start..]);
    this_life.contains("slave mode waiting a lock") || this_life.contains("could not be locked")
}

//! `activemq.xml`: what every private ActiveMQ is, and what a test may choose.

use anyhow::{Context as _, Result, bail};

use super::{Ports, STORE_PASSWORD};

/// What `--conf` may say of an ActiveMQ, as `KEY=VALUE`. Keys may come several times.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choices {
    /// `broker`: an attribute of the broker, such as `persistent="false"`.
    broker: Vec<String>,
    /// `policy`: a `<policyEntry>`. The first one takes the place of ours.
    policies: Vec<String>,
    /// `plugin`: a plugin's element, such as `<redeliveryPlugin/>`.
    plugins: Vec<String>,
    /// `connector`: an option of both OpenWire connectors, such as `wireFormat.maxInactivityDuration=2000`.
    connector: Vec<String>,
    /// `tls`: an option of the one over TLS, such as `needClientAuth=true`.
    tls: Vec<String>,
}

impl Choices {
    pub(super) fn parse(conf: &[String]) -> Result<Self> {
        let mut choices = Self::default();
        for choice in conf {
            let (key, value) = choice.split_once('=').with_context(|| format!("`{choice}` is not KEY=VALUE"))?;
            let place = match key {
                "broker" => &mut choices.broker,
                "policy" => &mut choices.policies,
                "plugin" => &mut choices.plugins,
                "connector" => &mut choices.connector,
                "tls" => &mut choices.tls,
                _ => bail!("`{key}` is none of broker, policy, plugin, connector, tls"),
            };
            place.push(value.to_owned());
        }
        Ok(choices)
    }
}

/// Each queue has dead letters of its own, so that tests on one broker do not see each other's.
const DEAD_LETTERS: &str = r#"<policyEntry queue="&gt;"><deadLetterStrategy>
        <individualDeadLetterStrategy queuePrefix="DLQ." useQueueForQueueMessages="true"/>
      </deadLetterStrategy></policyEntry>"#;

/// The administrator may do everything, the guest may use the queues below `test`, and whoever does not log in may
/// write to those below `stomp`.
const RIGHTS: &str = r#"<authorizationEntry queue="&gt;" read="admins" write="admins" admin="admins"/>
          <authorizationEntry queue="test.&gt;" read="guests" write="guests" admin="admins"/>
          <authorizationEntry queue="stomp.&gt;" read="admins" write="anonymous" admin="anonymous"/>
          <authorizationEntry topic="&gt;" read="admins" write="admins" admin="admins"/>
          <authorizationEntry topic="ActiveMQ.Advisory.&gt;" read="admins,guests,anonymous" write="admins,guests,anonymous"
                              admin="admins,guests,anonymous"/>"#;

pub(super) fn text(ports: Ports, store: &str, choices: &Choices) -> String {
    let Ports { openwire, tls, stomp } = ports;
    let broker = choices.broker.join(" ");
    let policies = if choices.policies.is_empty() { DEAD_LETTERS.to_owned() } else { choices.policies.join("\n") };
    let plugins = choices.plugins.join("\n");
    let options = |first: &[&str], further: &[&[String]]| {
        let further = further.iter().copied().flatten().map(String::as_str);
        first.iter().copied().chain(further).collect::<Vec<_>>().join("&amp;")
    };
    let openwire_options = options(&[], &[&choices.connector]);
    let tls_options = options(&["transport.wantClientAuth=true"], &[&choices.connector, &choices.tls]);
    format!(
        r#"<beans xmlns="http://www.springframework.org/schema/beans" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://www.springframework.org/schema/beans http://www.springframework.org/schema/beans/spring-beans.xsd
                      http://activemq.apache.org/schema/core http://activemq.apache.org/schema/core/activemq-core.xsd">
  <broker xmlns="http://activemq.apache.org/schema/core" brokerName="private" dataDirectory="data" tmpDataDirectory="tmp"
          useJmx="false" populateJMSXUserID="true" {broker}>
    <destinationPolicy><policyMap><policyEntries>
      {policies}
    </policyEntries></policyMap></destinationPolicy>
    <persistenceAdapter>
      <kahaDB directory="{store}" lockKeepAlivePeriod="0">
        <locker><shared-file-locker lockAcquireSleepInterval="200"/></locker>
      </kahaDB>
    </persistenceAdapter>
    <plugins>
      <simpleAuthenticationPlugin anonymousAccessAllowed="true" anonymousUser="anonymous" anonymousGroup="anonymous">
        <users>
          <authenticationUser username="admin" password="admin" groups="admins"/>
          <authenticationUser username="guest" password="guest" groups="guests"/>
        </users>
      </simpleAuthenticationPlugin>
      <authorizationPlugin><map><authorizationMap><authorizationEntries>
          {RIGHTS}
      </authorizationEntries></authorizationMap></map></authorizationPlugin>
      <statisticsBrokerPlugin/>
      {plugins}
    </plugins>
    <sslContext>
      <sslContext keyStore="tls/server.p12" keyStorePassword="{STORE_PASSWORD}" keyStoreType="PKCS12"
                  trustStore="tls/ca.p12" trustStorePassword="{STORE_PASSWORD}" trustStoreType="PKCS12"/>
    </sslContext>
    <systemUsage><systemUsage>
      <memoryUsage><memoryUsage limit="256mb"/></memoryUsage>
      <storeUsage><storeUsage limit="2gb"/></storeUsage>
      <tempUsage><tempUsage limit="1gb"/></tempUsage>
    </systemUsage></systemUsage>
    <transportConnectors>
      <transportConnector name="openwire" uri="tcp://127.0.0.1:{openwire}?{openwire_options}"/>
      <transportConnector name="ssl" uri="ssl://127.0.0.1:{tls}?{tls_options}"/>
      <transportConnector name="stomp" uri="stomp://127.0.0.1:{stomp}"/>
    </transportConnectors>
  </broker>
</beans>
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(conf: &[&str]) -> Result<Choices> {
        Choices::parse(&conf.iter().copied().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_choice_keeps_everything_behind_its_key() {
        let choices = parse(&["connector=maximumConnections=1", "policy=<policyEntry queue=\"a\"/>"]).unwrap();

        assert_eq!(choices.connector, ["maximumConnections=1"]);
        assert_eq!(choices.policies, ["<policyEntry queue=\"a\"/>"]);
    }

    #[test]
    fn a_choice_that_nobody_knows_is_refused() {
        let complaint = |conf: &str| parse(&[conf]).unwrap_err().to_string();

        assert_eq!(complaint("colour=red"), "`colour` is none of broker, policy, plugin, connector, tls");
        assert_eq!(complaint("policy"), "`policy` is not KEY=VALUE");
    }

    #[test]
    fn an_option_of_a_connector_goes_to_both_and_one_of_tls_to_one() {
        let ports = Ports { openwire: 1, tls: 2, stomp: 3 };
        let choices = parse(&["connector=maximumConnections=1", "tls=needClientAuth=true"]).unwrap();

        let text = text(ports, "kahadb", &choices);

        assert!(text.contains("tcp://127.0.0.1:1?maximumConnections=1\""), "{text}");
        let tls = "ssl://127.0.0.1:2?transport.wantClientAuth=true&amp;maximumConnections=1&amp;needClientAuth=true\"";
        assert!(text.contains(tls), "{text}");
    }
}

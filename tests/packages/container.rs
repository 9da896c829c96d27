//! The container's files, as far as they can be held against the checkout without an engine.

use std::path::Path;

use anyhow::Context as _;
use forebay_tests::gateway::Program;
use forebay_tests::world::Scratch;
use yaml_rust2::{Yaml, YamlLoader};

use crate::checkout;

fn read(name: &str) -> anyhow::Result<String> {
    let path = checkout("gateway/packaging/container").join(name);
    std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

fn yaml(name: &str) -> anyhow::Result<Yaml> {
    let documents = YamlLoader::load_from_str(&read(name)?).with_context(|| format!("{name} is no YAML"))?;
    documents.into_iter().next().with_context(|| format!("{name} is empty"))
}

fn texts(list: &Yaml) -> Vec<&str> {
    list.as_vec().into_iter().flatten().filter_map(Yaml::as_str).collect()
}

#[test]
fn what_compose_mounts_and_builds_is_there() -> anyhow::Result<()> {
    let compose = yaml("compose.yaml")?;
    let services = compose["services"].as_hash().context("no services")?;
    let names: Vec<_> = services.keys().filter_map(Yaml::as_str).collect();
    assert_eq!(names, ["mosquitto", "influxdb", "forebay", "grafana"]);
    let mut files = 0;
    for (name, service) in services {
        assert!(service["image"].as_str().is_some() == service["build"].is_badvalue(), "{name:?}");
        for volume in texts(&service["volumes"]) {
            let (from, _) = volume.split_once(':').with_context(|| volume.to_owned())?;
            if let Some(file) = from.strip_prefix("./") {
                read(file)?;
                files += 1;
            } else {
                let declared = &compose["volumes"].as_hash().context("no volumes")?;
                assert!(declared.contains_key(&Yaml::String(from.into())), "{from} is not declared");
            }
        }
        for needed in texts(&service["depends_on"]) {
            assert!(names.contains(&needed), "{needed} is no service");
        }
    }
    assert_eq!(files, 5, "files that are mounted");
    let build = &compose["services"]["forebay"]["build"];
    let context =
        checkout("gateway/packaging/container").join(build["context"].as_str().context("no context")?);
    let same = |path: &Path| path.canonicalize();
    assert_eq!(same(&context)?, same(&checkout(""))?, "the context is the checkout");
    assert!(context.join(build["dockerfile"].as_str().context("no dockerfile")?).is_file());
    Ok(())
}

#[test]
fn what_compose_publishes_is_for_this_machine_and_each_secret_opens_one_thing() -> anyhow::Result<()> {
    let compose = yaml("compose.yaml")?;
    let mut ports = Vec::new();
    let mut variables = Vec::new();
    for (name, service) in compose["services"].as_hash().context("no services")? {
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name:?} is reached from the network: {port}");
            ports.extend(port.rsplit(':').next().map(str::to_owned));
        }
        for (key, value) in service["environment"].as_hash().into_iter().flatten() {
            let secret = value.as_str().and_then(|value| value.strip_prefix("${")?.split_once(":?"));
            if let (Some(key), Some((variable, _))) = (key.as_str(), secret) {
                variables.push((key.to_owned(), variable.to_owned()));
            }
        }
    }
    assert_eq!(ports, ["1883", "8086", "8686", "3000"]);
    let expected = [
        ("DOCKER_INFLUXDB_INIT_PASSWORD", "INFLUXDB_PASSWORD"),
        ("DOCKER_INFLUXDB_INIT_ADMIN_TOKEN", "INFLUXDB_TOKEN"),
        ("INFLUXDB_TOKEN", "INFLUXDB_TOKEN"),
        ("FOREBAY_TOKEN", "FOREBAY_TOKEN"),
        ("GF_SECURITY_ADMIN_PASSWORD", "GRAFANA_PASSWORD"),
        ("INFLUXDB_TOKEN", "INFLUXDB_TOKEN"),
    ];
    assert_eq!(variables, expected.map(|(key, variable)| (key.to_owned(), variable.to_owned())));
    let text = read("compose.yaml")?;
    let made = text.lines().find_map(|line| line.split_once("for name in ")?.1.split_once(';'));
    let (made, _) = made.context("nothing makes the secrets")?;
    for (_, variable) in expected {
        assert!(made.split(' ').any(|name| name == variable), "{variable} is not made: {made}");
    }
    Ok(())
}

#[test]
fn what_the_image_copies_is_there_and_what_it_runs_is_built() -> anyhow::Result<()> {
    let file = read("Containerfile")?;
    let copies = file.lines().filter_map(|line| line.strip_prefix("COPY "));
    let mut copied = 0;
    for copy in copies.filter(|copy| !copy.starts_with("--from=build")) {
        let words: Vec<_> = copy.split(' ').collect();
        for source in &words[..words.len() - 1] {
            assert!(checkout(source).exists(), "COPY {source}: it is not in the checkout");
            copied += 1;
        }
    }
    assert!(copied >= 7, "{copied}");
    let manifest: toml::Table = std::fs::read_to_string(checkout("Cargo.toml"))?.parse()?;
    assert!(file.contains("--profile dist") && manifest["profile"].get("dist").is_some());
    for member in manifest["workspace"]["members"].as_array().context("no members")? {
        let member = member.as_str().context("no name")?;
        assert!(file.contains(&format!("COPY {member} {member}\n")), "cargo needs {member}");
    }
    Ok(())
}

#[test]
fn its_gateway_reads_its_configuration_and_its_broker_keeps_what_it_takes() -> anyhow::Result<()> {
    let scratch = Scratch::new("container")?;
    let payload = scratch.path().join("message.json");
    std::fs::write(&payload, "{\"temperature\":21.5}")?;
    let program = Program::of_this_build()
        .with_variable("INFLUXDB_TOKEN", "secret-of-compose".into())
        .with_variable("FOREBAY_TOKEN", "token-of-the-container".into());
    let mut command = program.command("explain", &checkout("gateway/packaging/container/forebay.toml"));
    let output = command.args(["--topic", "sensors/esp/cellar", "--payload"]).arg(&payload).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("climate,device=esp,gateway=compose,room=cellar"),
        "{said}"
    );

    let readme = std::fs::read_to_string(checkout("README.md"))?;
    let broker = read("mosquitto.conf")?;
    let recommended = readme.lines().skip_while(|line| *line != "persistence true");
    let recommended: Vec<_> = recommended.take_while(|line| *line != "```").map(str::trim).collect();
    assert!(recommended.len() > 4, "{recommended:?}");
    for line in recommended {
        assert!(broker.lines().any(|known| known == line), "the broker lacks {line}");
    }
    scratch.passed();
    Ok(())
}

#[test]
fn grafana_finds_its_database_and_its_dashboard() -> anyhow::Result<()> {
    let source = yaml("grafana/datasource.yaml")?;
    let source = &source["datasources"][0];
    let gateway: toml::Table = read("forebay.toml")?.parse()?;
    let sink = &gateway["influxdb"][0];
    assert_eq!(source["url"].as_str(), sink["url"].as_str());
    assert_eq!(source["jsonData"]["dbName"].as_str(), sink["bucket"].as_str());

    let provider = yaml("grafana/dashboards.yaml")?;
    let directory = provider["providers"][0]["options"]["path"].as_str().context("no path")?.to_owned();
    let compose = read("compose.yaml")?;
    assert!(compose.contains(&format!("./grafana/readings.json:{directory}/readings.json:ro")));
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana/readings.json")?)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    assert_eq!(panels.len(), 3);
    for panel in panels {
        assert_eq!(panel["datasource"]["uid"].as_str(), source["uid"].as_str(), "{}", panel["title"]);
        assert!(panel["targets"][0]["query"].as_str().is_some_and(|query| query.contains("$timeFilter")));
    }
    Ok(())
}

//! `forebay export`: each point once, from the database and the journal, with a gateway and without.

use std::collections::BTreeSet;
use std::process::Stdio;

use anyhow::Context as _;
use forebay_tests::services::InfluxDb;

use super::site::{Points, Site};
use crate::world::{Scratch, program};

/// What the command prints, and what it says beside.
fn export(site: &Site, arguments: &[&str]) -> anyhow::Result<(String, String)> {
    let mut command = program().command("export", &site.gateway.config());
    let output = command.args(arguments).stdin(Stdio::null()).output()?;
    let said = String::from_utf8(output.stderr)?;
    anyhow::ensure!(output.status.success(), "{arguments:?}: {said}");
    Ok((String::from_utf8(output.stdout)?, said))
}

/// The lines that the points would be, in their order.
fn lines(points: &Points, gateway: &str) -> Vec<String> {
    let line = |((ns, device), number): (&(i64, String), &i64)| {
        let t = *number as f64 / 4.0;
        format!("reads,device={device},gateway={gateway} n={number}i,t={t:?},word=\"w{number}\" {ns}")
    };
    points.iter().map(line).collect()
}

fn compare(site: &Site) -> anyhow::Result<()> {
    let (text, said) = export(site, &["--from", "0", "--format", "line-protocol"])?;
    let found: Vec<&str> = text.lines().collect();
    let gateway = found.first().and_then(|line| line.split("gateway=").nth(1)?.split(' ').next());
    let expected = lines(&site.acked, gateway.context("no tag `gateway`")?);
    assert_eq!(found.len(), expected.len());
    assert_eq!(found, expected);
    assert!(said.contains(&format!("{} points exported", expected.len())), "{said}");

    let (text, _) = export(site, &["--from", "0", "--format", "csv", "--device", "d1"])?;
    let of_device = site.acked.iter().filter(|((_, device), _)| device == "d1");
    let expected: BTreeSet<String> = of_device
        .flat_map(|((ns, _), number)| {
            let t = *number as f64 / 4.0;
            let line =
                |field: &str, value: String, kind: &str| format!("{ns},reads,d1,{field},{value},{kind},");
            [
                line("n", number.to_string(), "integer"),
                line("t", format!("{t:?}"), "float"),
                line("word", format!("w{number}"), "text"),
            ]
        })
        .collect();
    let mut rows = text.split("\r\n").filter(|row| !row.is_empty());
    assert_eq!(rows.next(), Some("time,ns,measurement,device,field,value,type,tags"));
    let found: Vec<String> =
        rows.map(|row| row.split(',').skip(1).take(6).map(|cell| format!("{cell},")).collect()).collect();
    assert_eq!(found.len(), expected.len(), "a value is there twice, or is missing");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    Ok(())
}

fn write(site: &mut Site, count: i64) -> anyhow::Result<()> {
    let first = site.acked.len() as i64;
    let readings = (first..first + count).map(|number| site.reading(&format!("d{}", number % 3), number));
    let readings = readings.collect();
    site.write(readings)
}

#[test]
fn an_export_has_each_point_once_with_the_gateway_and_without() -> anyhow::Result<()> {
    let mut site = Site::start("export", Scratch::new("export")?, "")?;
    write(&mut site, 500)?;
    compare(&site)?;
    // Killed, it leaves rows that only the journal has; more than a page of them in the end.
    write(&mut site, 11_000)?;
    site.gateway.kill();
    compare(&site)?;
    site.gateway.resume()?;
    compare(&site)?;
    let output = program()
        .command("export", &site.gateway.config())
        .args(["--from", "never", "--format", "csv"])
        .output()?;
    let said = String::from_utf8(output.stderr)?;
    assert!(!output.status.success() && said.contains("--from") && said.contains("RFC 3339"), "{said}");
    site.gateway.close(super::site::ACK_LIMIT)?;
    site.scratch.passed();
    Ok(())
}

#[test]
fn an_export_without_the_database_says_what_is_missing() -> anyhow::Result<()> {
    let scratch = Scratch::new("export-influxdb")?;
    let mut server = InfluxDb::start(&scratch.path().join("influxdb"))?;
    let tables = forebay_tests::gateway::Settings::influxdb_1(&server.url(), InfluxDb::DATABASE);
    let mut site = Site::start("export-influxdb", scratch, &tables)?;
    // More than a page, which is as much as InfluxDB 1 takes for a whole answer.
    write(&mut site, 12_000)?;
    compare(&site)?;
    server.stop()?;
    let mut command = program().command("export", &site.gateway.config());
    let output = command.args(["--from", "0", "--format", "csv"]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8(output.stderr)?;
    assert!(!output.status.success() && said.contains("not complete") && said.contains("main"), "{said}");
    site.scratch.passed();
    Ok(())
}

//! What to write instead of an unknown key: other programs' names first, then the nearest known one.

/// Names of Telegraf (and a few that are written by habit) by the table they are written in, and what to write here.
const FOREIGN: &[(&str, &str, &str)] = &[
    (
        "",
        "agent",
        "Telegraf's [agent] has no counterpart; `batch_size` and `flush_interval` belong to [[influxdb]]",
    ),
    ("", "global_tags", "Telegraf's [global_tags] is [tags] here"),
    ("", "inputs", "Telegraf's [[inputs.mqtt_consumer]] is [[mqtt]] here"),
    ("", "outputs", "Telegraf's [[outputs.influxdb_v2]] is [[influxdb]] here"),
    ("", "mqtt_consumer", "Telegraf's mqtt_consumer is [[mqtt]] here"),
    ("", "influxdb_v2", "write [[influxdb]] with version = 2"),
    ("", "listen", "it belongs to [http]"),
    ("", "max_bytes", "it belongs to [journal], [sqlite] or [dead_letters]"),
    ("mqtt", "broker", "write `url = \"mqtt://host:1883\"`"),
    ("mqtt", "host", "write `url = \"mqtt://host:1883\"`"),
    ("mqtt", "port", "it is part of `url = \"mqtt://host:1883\"`"),
    ("mqtt", "server", "write `url = \"mqtt://host:1883\"`"),
    ("mqtt", "servers", "Telegraf's `servers` is `url` here, one [[mqtt]] for each broker"),
    ("mqtt", "urls", "write `url`, one [[mqtt]] for each broker"),
    ("mqtt", "topic", "topics belong below the broker: write [[mqtt.subscribe]] and there `topic`"),
    ("mqtt", "topics", "Telegraf's `topics` is `topic` here, one [[mqtt.subscribe]] for each"),
    ("mqtt", "data_format", "Telegraf's `data_format` is `format` of [[mqtt.subscribe]] here"),
    ("mqtt", "format", "it belongs to [[mqtt.subscribe]]"),
    ("mqtt", "qos", "leave it out: subscriptions are always QoS 1, which is what survives a restart"),
    ("mqtt", "persistent_session", "leave it out: the session is always persistent"),
    ("mqtt", "topic_tag", "name a level of `topic` in [[mqtt.subscribe]] instead: \"sensors/{device}\""),
    ("mqtt", "max_undelivered_messages", "leave it out: what is received is journaled at once"),
    ("mqtt", "tls_ca", "Telegraf's `tls_ca` is `ca_file` here"),
    ("mqtt", "tls_cert", "Telegraf's `tls_cert` is `client_cert_file` here"),
    ("mqtt", "tls_key", "Telegraf's `tls_key` is `client_key_file` here"),
    ("mqtt.subscribe", "data_format", "Telegraf's `data_format` is `format` here"),
    ("mqtt.subscribe", "topics", "Telegraf's `topics` is `topic` here, one [[mqtt.subscribe]] for each"),
    ("mqtt.subscribe", "json_time_key", "Telegraf's `json_time_key` is `timestamp = \"$.key\"` here"),
    ("mqtt.subscribe", "json_time_format", "Telegraf's `json_time_format` is `timestamp_format` here"),
    ("mqtt.subscribe", "json_string_fields", "Telegraf's `json_string_fields` is `text_fields` here"),
    ("mqtt.subscribe", "json_name_key", "Telegraf's `json_name_key` is `measurement = \"$.key\"` here"),
    ("mqtt.subscribe", "json_query", "Telegraf's `json_query` is `readings = \"$.list\"` here"),
    ("mqtt.subscribe", "fieldexclude", "Telegraf's `fieldexclude` is `drop` here, without patterns"),
    ("mqtt.subscribe", "fielddrop", "Telegraf's `fielddrop` is `drop` here, without patterns"),
    ("mqtt.subscribe", "name_override", "Telegraf's `name_override` is `measurement` here"),
    ("mqtt.subscribe", "tag_keys", "Telegraf's `tag_keys` is `tags_from = [\"$.key\"]` here"),
    (
        "mqtt.subscribe",
        "tags",
        "name a level of `topic`, or list paths in `tags_from`; [tags] is for all points",
    ),
    (
        "mqtt.subscribe",
        "qos",
        "leave it out: subscriptions are always QoS 1, which is what survives a restart",
    ),
    ("serial", "baud_rate", "write `baud`"),
    ("serial", "data_format", "Telegraf's `data_format` is `format` here"),
    ("serial", "csv_column_names", "Telegraf's `csv_column_names` is `columns` here"),
    ("serial", "csv_delimiter", "Telegraf's `csv_delimiter` is `separator` here"),
    ("serial", "csv_header_row_count", "leave `columns` out where a header line names them"),
    ("serial", "csv_timestamp_column", "Telegraf's `csv_timestamp_column` is `timestamp = \"$.name\"` here"),
    ("serial", "csv_timestamp_format", "Telegraf's `csv_timestamp_format` is `timestamp_format` here"),
    ("serial", "csv_tag_columns", "Telegraf's `csv_tag_columns` is `tags_from = [\"$.name\"]` here"),
    ("serial", "path", "write `port = \"/dev/serial/by-id/…\"`"),
    ("journal", "metric_buffer_limit", "Telegraf's `metric_buffer_limit` is `max_bytes` here, in bytes"),
    ("influxdb", "urls", "Telegraf's `urls` is `url` here, one [[influxdb]] for each database"),
    ("influxdb", "organization", "Telegraf's `organization` is `org` here"),
    ("influxdb", "db", "write `database`"),
    ("influxdb", "metric_batch_size", "Telegraf's `metric_batch_size` is `batch_size` here"),
    ("influxdb", "precision", "leave it out: timestamps are always written in nanoseconds"),
    ("influxdb", "timeout", "leave it out: requests that are not answered are sent again"),
    ("http", "port", "it is part of `listen = \"127.0.0.1:8686\"`"),
];

/// The cure for the unknown key `key` in the table `path`, where the keys `known` exist.
pub(super) fn cure(path: &str, key: &str, known: &[&str]) -> String {
    if let Some((_, _, cure)) = FOREIGN.iter().find(|(table, name, _)| *table == path && *name == key) {
        return (*cure).to_owned();
    }
    let nearest = known
        .iter()
        .map(|name| (strsim::jaro_winkler(&key.to_lowercase(), name), name))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    match nearest {
        Some((likeness, name)) if likeness >= 0.8 => format!("did you mean `{name}`?"),
        _ => {
            let mut known: Vec<&str> = known.to_vec();
            known.sort_unstable();
            known.dedup();
            format!("known here are {}", known.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_or_all_of_them() {
        assert_eq!(cure("mqtt", "clientid", &["url", "client_id"]), "did you mean `client_id`?");
        assert_eq!(cure("mqtt", "URL", &["url", "client_id"]), "did you mean `url`?");
        assert_eq!(cure("mqtt", "zzz", &["url", "client_id", "url"]), "known here are client_id, url");
        assert!(cure("mqtt", "servers", &["url"]).contains("`url`"));
    }
}

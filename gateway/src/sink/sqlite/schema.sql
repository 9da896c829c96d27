-- The embedded store, made to be read by hand: `SELECT * FROM readings WHERE device = 'boiler' ORDER BY ns`.
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;

BEGIN IMMEDIATE;

-- One row for each measurement and tag set; `key` is its line-protocol form, `tags` a JSON object.
CREATE TABLE IF NOT EXISTS series (
    id          INTEGER PRIMARY KEY,
    key         TEXT NOT NULL UNIQUE,
    measurement TEXT NOT NULL,
    device      TEXT,
    tags        TEXT NOT NULL
);

-- One row for each point: nanoseconds since 1970 UTC, and a JSON object of its fields.
CREATE TABLE IF NOT EXISTS points (
    series INTEGER NOT NULL REFERENCES series (id),
    ns     INTEGER NOT NULL,
    fields TEXT NOT NULL,
    PRIMARY KEY (series, ns)
) WITHOUT ROWID;

-- How far delivery has come in the journal of that id; written in the transaction of the points. `counted` is missing if
-- `confirmed` lacks rows, because a version wrote them that did not count.
CREATE TABLE IF NOT EXISTS delivery (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    journal  TEXT NOT NULL,
    next     INTEGER NOT NULL,
    counted  INTEGER
);

-- How many points of a device have been deleted to keep within the retention and the size: `forebay audit` needs it.
CREATE TABLE IF NOT EXISTS swept (
    device TEXT PRIMARY KEY,
    points INTEGER NOT NULL
) WITHOUT ROWID;

-- How many rows of a device, by its key in the journal's ledger, delivery has ever stored here of the journal in `delivery`;
-- written in the transaction of the points. What the journal counts beyond that is lost here: a gap `sink_reset`.
CREATE TABLE IF NOT EXISTS confirmed (
    device TEXT PRIMARY KEY,
    rows   INTEGER NOT NULL
) WITHOUT ROWID;

-- One row for each reading: one field of one point.
CREATE VIEW IF NOT EXISTS readings AS
SELECT strftime('%Y-%m-%dT%H:%M:%S',
                (points.ns - (points.ns % 1000000000 + 1000000000) % 1000000000) / 1000000000, 'unixepoch')
           || printf('.%09dZ', (points.ns % 1000000000 + 1000000000) % 1000000000) AS time,
       points.ns          AS ns,
       series.measurement AS measurement,
       series.device      AS device,
       field.key          AS field,
       field.value        AS value,
       field.type         AS type,
       series.tags        AS tags
FROM points
JOIN series ON series.id = points.series
JOIN json_each(points.fields) AS field;

PRAGMA user_version = 1;

COMMIT;

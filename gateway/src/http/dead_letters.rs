//! The dead letters: a list of them, each of them whole, and what an operator decides about them.
//!
//! `GET /api/v1/dead-letters?limit=` lists the oldest ones, `GET …/{id}` shows one with its body. `POST …/replay` sends points
//! again that a database has refused, and `POST …/drop` lets letters go; both take `{"ids": ["main-12"]}` or `{"all": true}`,
//! the latter also with `"sink": "main"`, and answer with what became of them. On TCP both want a token (`guard.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tracing::info;

use crate::dead_letters::{DeadLetters, Dropped, Found, Letter, LetterId, Listed, Reader, WholeLetter};
use crate::delivery::replay::{Fate, LETTERS_MAX};
use crate::stats::Stats;

/// Letters in a list, unless the question says otherwise, and at most.
const LISTED: usize = 1_000;
const LISTED_MAX: usize = 10_000;
/// Ids in a question.
const IDS_MAX: usize = 10_000;
/// Letters that stay which an answer tells of one by one.
const KEPT_TOLD_MAX: usize = 100;
/// Longest time that a database may take for one hand-in: a few requests.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where points are sent again.
pub(super) const REPLAY: &str = "/api/v1/dead-letters/replay";

/// What the handlers work with.
#[derive(Debug)]
pub struct Letters {
    /// The store.
    pub store: Arc<DeadLetters>,
    /// Its directory.
    pub directory: PathBuf,
    /// Where the databases' desks are found.
    pub stats: Arc<Stats>,
}

/// Some of the letters.
#[derive(Debug, Serialize)]
struct List {
    letters: Vec<Listed>,
    /// Whether there are others behind them.
    more: bool,
    dropped: Dropped,
    /// Letters that the disk has lost, as far as the list goes.
    damaged_letters: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Limit {
    limit: Option<usize>,
}

/// Which letters.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// These.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Or all that there are.
    #[serde(default)]
    pub all: bool,
    /// Of these only those that this database has refused.
    #[serde(default)]
    pub sink: Option<String>,
}

/// What became of letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Letters that are gone: stored, or dropped.
    pub gone: u64,
    /// Letters that stay.
    pub kept: u64,
    /// Some of these, and why.
    pub reasons: Vec<Kept>,
}

/// A letter that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its id.
    pub id: String,
    /// Why.
    pub reason: String,
}

type Failure = (StatusCode, String);

/// The routes.
pub(super) fn router(letters: Arc<Letters>) -> Router {
    Router::new()
        .route("/api/v1/dead-letters", get(list))
        .route("/api/v1/dead-letters/{id}", get(show))
        .route(REPLAY, post(replay))
        .route("/api/v1/dead-letters/drop", post(let_go))
        .with_state(letters)
}

async fn list(
    State(letters): State<Arc<Letters>>,
    Query(Limit { limit }): Query<Limit>,
) -> Result<Json<serde_json::Value>, Failure> {
    let limit = limit.unwrap_or(LISTED).clamp(1, LISTED_MAX);
    blocking(move || {
        let reader = Reader::open_dir(&letters.directory).map_err(io::Error::other)?;
        let mut list =
            List { letters: Vec::new(), more: false, dropped: reader.dropped(), damaged_letters: 0 };
        for found in reader {
            match found.map_err(io::Error::other)? {
                Found::Letter(_) if list.letters.len() >= limit => {
                    list.more = true;
                    break;
                }
                Found::Letter(letter) => list.letters.push(Listed::of(&letter)),
                Found::Damage(damage) => list.damaged_letters += damage.letters,
            }
        }
        serde_json::to_value(list).map(Json).map_err(io::Error::other)
    })
    .await
}

async fn show(
    State(letters): State<Arc<Letters>>,
    Path(id): Path<String>,
) -> Result<Json<serde_json::Value>, Failure> {
    let bad = |error: &dyn std::fmt::Display| (StatusCode::BAD_REQUEST, format!("{error}\n"));
    let id: LetterId = id.parse().map_err(|error| bad(&error))?;
    let found = blocking(move || {
        let reader = Reader::open_dir(&letters.directory).map_err(io::Error::other)?;
        let found = reader.find(&id).map_err(io::Error::other)?;
        found
            .map(|letter| serde_json::to_value(WholeLetter::of(&letter)).map_err(io::Error::other))
            .transpose()
    });
    let missing =
        || (StatusCode::NOT_FOUND, "there is no such dead letter; it may be gone by now\n".to_owned());
    found.await?.map(Json).ok_or_else(missing)
}

async fn replay(
    State(letters): State<Arc<Letters>>,
    Json(selection): Json<Selection>,
) -> Result<Json<Done>, Failure> {
    let mut walk = Walk::begin(&letters, selection).await?;
    let (mut done, mut failing) = (Done::default(), BTreeMap::new());
    loop {
        let chunk;
        (walk, chunk) = walk.step().await?;
        if chunk.is_empty() {
            break;
        }
        let mut by_sink: BTreeMap<Box<str>, Vec<Letter>> = BTreeMap::new();
        for letter in chunk {
            by_sink.entry(letter.sink.clone()).or_default().push(letter);
        }
        for (sink, of_sink) in by_sink {
            let ids: Vec<String> = of_sink.iter().map(|letter| letter.id().to_string()).collect();
            let fates = match failing.get(&sink) {
                Some(why) => vec![Fate::Failed(String::clone(why)); ids.len()],
                None => hand_in(&letters.stats, &sink, of_sink).await,
            };
            for (id, fate) in ids.into_iter().zip(fates) {
                match fate {
                    Fate::Stored => done.gone += 1,
                    Fate::Refused(why) => done.keep(id, why),
                    Fate::Failed(why) => {
                        failing.entry(sink.clone()).or_insert_with(|| why.clone());
                        done.keep(id, why);
                    }
                }
            }
        }
    }
    walk.tell_missing(&mut done);
    Ok(Json(done))
}

/// Lets a database's driver send letters again.
async fn hand_in(stats: &Stats, sink: &str, letters: Vec<Letter>) -> Vec<Fate> {
    let count = letters.len();
    let failed = |why: String| vec![Fate::Failed(why); count];
    if sink.is_empty() {
        let why = "it could not be read as rows, so there is no point to send; let its sender send it again";
        return vec![Fate::Refused(why.to_owned()); count];
    }
    let Some(status) = stats.sinks().remove(sink) else {
        return failed(format!("no database {sink:?} is configured any more; it can only be dropped"));
    };
    let told = match status.desk().hand_in(letters) {
        Ok(told) => told,
        Err(busy) => return failed(busy.to_string()),
    };
    match timeout(PATIENCE, told).await {
        Ok(Ok(fates)) => fates,
        _ => {
            let last = status.snapshot().last_error.unwrap_or_else(|| "it is busy".to_owned());
            failed(format!("the database has no time for it now: {last}"))
        }
    }
}

async fn let_go(
    State(letters): State<Arc<Letters>>,
    Json(selection): Json<Selection>,
) -> Result<Json<Done>, Failure> {
    let mut walk = Walk::begin(&letters, selection).await?;
    let mut done = Done::default();
    loop {
        let chunk;
        (walk, chunk) = walk.step().await?;
        if chunk.is_empty() {
            break;
        }
        let store = Arc::clone(&letters.store);
        let stats = Arc::clone(&letters.stats);
        let remove = move || {
            let gone = store.remove(&chunk).map_err(io::Error::other)?;
            stats.count_discarded(&gone);
            Ok(gone.len() as u64)
        };
        done.gone += blocking(remove).await?;
    }
    walk.tell_missing(&mut done);
    info!(letters = done.gone, "dead letters are dropped, as somebody wants");
    Ok(Json(done))
}

impl Done {
    fn keep(&mut self, id: String, reason: String) {
        self.kept += 1;
        if self.reasons.len() < KEPT_TOLD_MAX {
            self.reasons.push(Kept { id, reason });
        }
    }
}

/// Goes through the letters that a selection names, some at a time.
struct Walk {
    reader: Reader,
    selection: Selection,
    wanted: BTreeSet<String>,
    missing: BTreeSet<String>,
}

impl Walk {
    async fn begin(letters: &Arc<Letters>, selection: Selection) -> Result<Walk, Failure> {
        let bad = |why: &str| Err((StatusCode::BAD_REQUEST, format!("{why}\n")));
        if selection.all != selection.ids.is_empty() {
            return bad("name letters by `ids`, or all of them by `\"all\": true`");
        }
        if selection.ids.len() > IDS_MAX {
            return bad("too many ids; name at most 10,000");
        }
        let letters = Arc::clone(letters);
        blocking(move || {
            let reader = Reader::open_dir(&letters.directory).map_err(io::Error::other)?;
            let wanted: BTreeSet<String> = selection.ids.iter().cloned().collect();
            Ok(Walk { reader, selection, missing: wanted.clone(), wanted })
        })
        .await
    }

    /// The next letters; none at the end.
    async fn step(mut self) -> Result<(Walk, Vec<Letter>), Failure> {
        blocking(move || {
            let mut chunk = Vec::new();
            while chunk.len() < LETTERS_MAX {
                let Some(found) = self.reader.next() else { break };
                if let Found::Letter(letter) = found.map_err(io::Error::other)?
                    && self.names(&letter)
                {
                    chunk.push(letter);
                }
            }
            Ok((self, chunk))
        })
        .await
    }

    fn names(&mut self, letter: &Letter) -> bool {
        if self.selection.sink.as_deref().is_some_and(|sink| *sink != *letter.sink) {
            return false;
        }
        if self.selection.all {
            return true;
        }
        let id = letter.id().to_string();
        self.missing.remove(&id);
        self.wanted.contains(&id)
    }

    fn tell_missing(self, done: &mut Done) {
        for id in self.missing {
            done.keep(
                id,
                "there is no such dead letter; `forebay dead-letters list` shows those that there are".into(),
            );
        }
    }
}

/// Runs what reads or writes the disk beside the event loop.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let failed = |error: &dyn std::fmt::Display| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"));
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}

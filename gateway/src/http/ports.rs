//! Serial ports, and what is done with them: `/api/v1/ports`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::Api;
use crate::ports::{Listed, Places};

/// All ports. Looking for their holders reads all of `/proc`, which must not hold up the other answers.
pub(super) async fn ports(State(api): State<Arc<Api>>) -> Json<Vec<Listed>> {
    let served = api.stats.ports();
    let listing = tokio::task::spawn_blocking(move || Places::default().listing(&[], &served));
    Json(listing.await.unwrap_or_default())
}

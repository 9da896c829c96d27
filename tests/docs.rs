//! The pages of the documentation are true: what they show between fences is run against real services, or says why not.

#[path = "docs/list.rs"]
mod list;
#[path = "docs/readme.rs"]
mod readme;
#[path = "docs/stage.rs"]
mod stage;
#[path = "docs/tasks.rs"]
mod tasks;
#[path = "docs/upkeep.rs"]
mod upkeep;

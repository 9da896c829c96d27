//! MQTT as people have it: foreign devices, a real broker, and everything that may happen on the way to the database.

mod devices;
mod gateways;
mod outage;
mod poison;
mod retained;
mod several;
mod site;
mod soak;
mod sparkplug;
mod tls;

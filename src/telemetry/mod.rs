//! What happened? One event type per thing that happens: log, metric, audit.

//! How does an operator look inside? Metrics and health on their own listener, away from the data plane.

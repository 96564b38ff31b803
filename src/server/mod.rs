//! How do clients connect? Sockets, TLS, deadlines, drain.

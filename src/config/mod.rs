//! What did the operator ask for, and is it sane?

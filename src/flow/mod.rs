//! Admit, wait or shed?

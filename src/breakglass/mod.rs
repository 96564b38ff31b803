//! How do operators get in when everything else is saturated or dead?

//! Who is calling, and how strongly is it proven?

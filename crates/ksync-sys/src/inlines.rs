//! The inlines of the WDK's headers.

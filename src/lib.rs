//! creel runs CI workflows in disposable microVMs.

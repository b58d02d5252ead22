//! What the folders held that keys were made of, so that `why` can name the file that changed.
//!
//! A hint: no key depends on it, and what can't be read or written is only less to say.

use std::path::PathBuf;

use super::action::{read_json, write_json};
use super::files::Listing;
use super::{CacheError, Destination, Digest, Store, WatchedFile};

impl Store {
    /// What a folder of this digest held; `None` if no stage that read it was computed with this store.
    ///
    /// # Errors
    /// The store can't be read.
    pub(crate) fn listing(&self, folder: &Digest) -> Result<Option<Listing>, CacheError> {
        read_json(&self.listing_path(folder))
    }

    /// Notes what a folder held when a key was made of it, unless that is known.
    ///
    /// # Errors
    /// The store can't be written.
    pub(crate) fn put_listing(&self, watched: &WatchedFile) -> Result<(), CacheError> {
        let Some(digest) = watched.folder_digest() else { return Ok(()) };
        let path = self.listing_path(&digest);
        if path.exists() {
            return Ok(());
        }
        match watched.listing() {
            Ok(listing) => write_json(self, Destination::Pointer(path), &listing),
            // It changed or went meanwhile: whoever needs its bytes finds out.
            Err(_) => Ok(()),
        }
    }

    fn listing_path(&self, folder: &Digest) -> PathBuf {
        self.fanned("listings", &folder.to_string()).with_extension("json")
    }
}

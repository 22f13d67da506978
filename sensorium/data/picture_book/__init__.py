"""picture-book: captioned drawings and photographs, built from Debian packages."""

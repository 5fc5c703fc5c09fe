"""What the tests share: real servers, and waiting without sleeping."""

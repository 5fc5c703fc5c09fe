"""What type checkers must find right and wrong."""

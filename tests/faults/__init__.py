"""What happens in production, happening to real servers: nothing may be lost in silence."""

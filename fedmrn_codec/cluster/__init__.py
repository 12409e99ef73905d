"""Work on more than one machine, by way of Ray; imported only when it is asked for."""

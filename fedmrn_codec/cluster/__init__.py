"""Work on several machines with Ray, which is imported only when it is used."""

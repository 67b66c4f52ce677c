"""How many different showers a generator produces: the birthday-paradox test and the rate of colliding pairs."""

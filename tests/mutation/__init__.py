"""Small mistakes made in `farmer/storage` one at a time: the tests must notice most of them."""

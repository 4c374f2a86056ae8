/* This package exists to fail: swarm must blame it, and go on. */
int main(void)
{
	return no_such_name;
}

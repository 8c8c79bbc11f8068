int other_twin(void);
int other_twin(void)
{
    return 2;
}

int twin(void);
int twin(void)
{
    return 1;
}

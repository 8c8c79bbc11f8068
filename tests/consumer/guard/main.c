int innocent(void);

int main(void)
{
    return innocent();
}

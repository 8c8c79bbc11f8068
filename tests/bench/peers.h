// Other libraries, where they are installed: started and waited for through their own loops.
#ifndef PM_BENCH_PEERS_H
#define PM_BENCH_PEERS_H

#ifdef BENCH_HAVE_UV
void peer_uv_open(void);
double peer_uv_run(char *const argv[]); // When control was back.
void peer_uv_keep(char *const argv[]);  // Starts one that stays.
void peer_uv_close(void);               // Kills those that stayed.
#endif
#ifdef BENCH_HAVE_GLIB
double peer_glib_run(char *const argv[]);
void peer_glib_keep(char *const argv[]);
void peer_glib_end(void); // Kills those that stayed.
#endif

#endif

/* SIGUSR1 and SIGTERM ask for a save at the next step boundary. */
#ifndef MZ_TRAIN_SIGNALS_H
#define MZ_TRAIN_SIGNALS_H

void mz_signals_install(void);
/* The signal that came since installation, 0: none. */
int mz_signals_pending(void);

#endif

-- A renewal touches no index: the end of the lease is in none. It wrote an entry into each index of a
-- running job, a dozen, every ten seconds. Which leases have run out is read of what runs, which is no more
-- than there are slots.
-- was: 92062a2c3076238bc072812b46a7802929ab90d276f3ba944547b4c1f547e846

-- Room in each page for the next version of a row that is renewed there.
alter table jobs set (fillfactor = 90);

"""FastDPM inside other libraries, and their models here."""

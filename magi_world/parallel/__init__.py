"""One world over several processes: tokens and heads split over ranks, and layers over stages."""
